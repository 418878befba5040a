"""The link with the broker: one connection at a time, kept up, with flow control of its own."""

from edged.frontends.mqtt.link.broker import Broker as Broker
from edged.frontends.mqtt.link.connection import Connection as Connection
from edged.frontends.mqtt.link.fault import Fault as Fault
from edged.frontends.mqtt.link.link import Link as Link
from edged.frontends.mqtt.link.link import State as State
from edged.frontends.mqtt.link.subscription import Subscription as Subscription
