"""Ask a device over MQTT 3.1.1 from a microcontroller: MicroPython, with umqtt.simple of micropython-lib.

On a board write the values below in. On MicroPython's unix port the environment gives them, and the arguments
what to ask whom: micropython ask_mqtt_micropython.py DEVICE PROMPT.
"""

import binascii
import json
import os
import select
import sys
import time

from umqtt.simple import MQTTClient  # type: ignore[import-not-found]

getenv = getattr(os, "getenv", lambda name, default: default)
HOST, PORT = getenv("MQTT_HOST", "broker.local"), int(getenv("MQTT_PORT", "1883"))
LOGIN, PASSWORD = getenv("MQTT_LOGIN", "example"), getenv("MQTT_PASSWORD", "")
REPEAT_SECONDS = float(getenv("MQTT_REPEAT_SECONDS", "30"))
DEVICE, PROMPT = sys.argv[1:3] if len(sys.argv) > 2 else ("kitchen-3fa2b1", "Say hello.")


def ask(device: str, prompt: str) -> dict[str, str]:
    """Print the answer as it comes and return the frame that ends the request."""
    request_id = binascii.hexlify(os.urandom(8)).decode()
    topic = f"edged/v1/{device}/ask/{LOGIN}"
    # Bytes, since umqtt counts the characters of text; the same ones each time, else it's id_in_use.
    body = json.dumps({"id": request_id, "prompt": prompt}).encode()
    end: list[dict[str, str]] = []
    last, shown = [1, -1], [""]

    def take(topic: bytes, payload: bytes) -> None:
        frame = json.loads(payload)
        if frame["type"] in ("done", "error"):
            end.append(frame)
        elif frame["type"] == "chunk" and [frame["attempt"], frame["seq"]] > last:  # else it came twice
            if frame["attempt"] > last[0]:
                print()  # the device was restarted: the text begins anew
                shown[0] = ""
            print(frame["text"], end="")
            shown[0] += frame["text"]
            last[:] = frame["attempt"], frame["seq"]

    while not end:
        try:
            client = MQTTClient("ask-" + request_id, HOST, PORT, LOGIN, PASSWORD, keepalive=0)
            client.set_callback(take)
            client.connect()
            client.subscribe(f"edged/v1/{device}/reply/{LOGIN}/{request_id}", qos=1)
            incoming = select.poll()
            incoming.register(client.sock, select.POLLIN)
            client.publish(topic, body, qos=1)  # not before the subscription: no frame is missed
            while not end:
                if incoming.poll(int(REPEAT_SECONDS * 1000)):
                    client.wait_msg()
                else:  # under the same id it is never computed twice
                    client.publish(topic, body, qos=1)
            client.disconnect()
        except OSError as error:
            print(f"({error}: trying again)")
            time.sleep(5)
    if end[0]["type"] == "done":  # whichever chunks came, this text counts
        print("" if shown[0] == end[0]["text"] else "\n" + end[0]["text"])
    return end[0]


frame = ask(DEVICE, PROMPT)
if frame["type"] == "error":
    print(f"{frame['code']}: {frame['message']}")
    sys.exit(1)
