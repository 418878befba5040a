#!/usr/bin/env python3
"""Ask a device over MQTT 3.1.1, with paho-mqtt: ask_mqtt.py DEVICE PROMPT prints the answer as it comes."""

import json
import os
import queue
import sys
import uuid
from typing import Any

from paho.mqtt.client import Client, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

device, prompt = sys.argv[1:]
login, request_id = os.environ.get("MQTT_LOGIN", "example"), str(uuid.uuid4())
repeat_seconds = float(os.environ.get("MQTT_REPEAT_SECONDS", "30"))
ask, reply = f"edged/v1/{device}/ask/{login}", f"edged/v1/{device}/reply/{login}/{request_id}"
body = json.dumps({"id": request_id, "prompt": prompt})  # the same bytes each time, else it's id_in_use
frames: queue.Queue[dict[str, Any]] = queue.Queue()

client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv311)
client.on_message = lambda client, userdata, message: frames.put(json.loads(message.payload))
client.on_connect = lambda client, userdata, flags, reason, properties: (
    frames.put({"type": "error", "code": "broker", "message": f"{reason}"})
    if reason.is_failure
    else client.subscribe(reply, qos=1)
)
client.on_subscribe = lambda client, *_: client.publish(ask, body, qos=1)  # not before: no frame is missed
client.username_pw_set(login, os.environ.get("MQTT_PASSWORD"))
if ca := os.environ.get("MQTT_CA"):
    client.tls_set(ca)
client.connect(os.environ.get("MQTT_HOST", "localhost"), int(os.environ.get("MQTT_PORT", "1883")))
client.loop_start()

text, last = "", (1, -1)
frame: dict[str, Any] = {"type": ""}
while frame["type"] not in ("done", "error"):
    try:
        frame = frames.get(timeout=repeat_seconds)
    except queue.Empty:  # under the same id it is never computed twice
        client.publish(ask, body, qos=1)
        continue
    if frame["type"] == "chunk" and (place := (frame["attempt"], frame["seq"])) > last:  # else it came twice
        if place[0] > last[0]:
            text = ""  # the device was restarted: the text begins anew
            print()
        print(frame["text"], end="", flush=True)
        text, last = text + frame["text"], place
client.disconnect()
client.loop_stop()
if frame["type"] == "error":
    sys.exit(f"{frame['code']}: {frame['message']}")
print("" if text == frame["text"] else f"\n{frame['text']}")  # whichever chunks came, this text counts
