#!/usr/bin/env python3
"""Ask a device over MQTT 3.1.1, with paho-mqtt: ask_mqtt.py DEVICE PROMPT prints the whole answer.

To show text as it comes, print that of each `chunk`; one may come twice, which its attempt and seq tell.
"""

import json
import os
import queue
import sys
import uuid
from typing import Any

from paho.mqtt.client import Client, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

device, prompt = sys.argv[1:] if len(sys.argv) == 3 else sys.exit(__doc__)
login, request_id = os.environ.get("MQTT_LOGIN", "example"), str(uuid.uuid4())
host, port = os.environ.get("MQTT_HOST", "localhost"), int(os.environ.get("MQTT_PORT", "1883"))
ask, reply = f"edged/v1/{device}/ask/{login}", f"edged/v1/{device}/reply/{login}/{request_id}"
body = json.dumps({"id": request_id, "prompt": prompt})  # the same bytes each time, else it's id_in_use
frames: queue.Queue[dict[str, Any]] = queue.Queue()

client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv311)
client.username_pw_set(login, os.environ.get("MQTT_PASSWORD"))
if ca := os.environ.get("MQTT_CA"):
    client.tls_set(ca)
client.on_message = lambda client, userdata, message: frames.put(json.loads(message.payload))
client.on_connect = lambda client, userdata, flags, reason, properties: (
    frames.put({"type": "error", "code": host, "message": f"{reason}"})
    if reason.is_failure
    else client.subscribe(reply, qos=1)
)
client.on_subscribe = lambda client, *_: client.publish(ask, body, qos=1)  # not before: no frame is missed
try:
    client.connect(host, port)
except OSError as error:
    sys.exit(f"{host}:{port}: {error}")
client.loop_start()

frame = {"type": ""}
while frame["type"] not in ("done", "error"):
    try:
        frame = frames.get(timeout=float(os.environ.get("MQTT_REPEAT_SECONDS", "30")))
    except queue.Empty:  # under the same id it is never computed twice
        if client.is_connected():
            client.publish(ask, body, qos=1)
        else:
            print(f"{host}:{port} lets nobody in; a TLS port wants MQTT_CA", file=sys.stderr)
client.disconnect()
print(frame["text"] if frame["type"] == "done" else sys.exit(f"{frame['code']}: {frame['message']}"))
