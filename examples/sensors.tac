"""A server with UDP sensors: `twistd -ny sensors.tac`, then `echo kitchen 21.5 | nc -u -q0 127.0.0.1 9000`."""

from twisted.application import internet, service
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from twistedsock import Identity, Policy, grants, make_service

log = Logger("sensors")


class Sensors(DatagramProtocol):
    """Publishes each datagram: the name of a sensor, a space, and a number."""

    def datagramReceived(self, datagram, address):
        sensor, _, number = datagram.decode(errors="replace").partition(" ")
        try:
            published = server.bridge.publish(f"sensors.{sensor}", {"celsius": float(number)}, nick="udp")
            published.addErrback(lambda failure: log.warn("{error}", error=failure.getErrorMessage()))
        except ValueError:
            log.warn("no number from {address}: {datagram}", address=address, datagram=datagram)


class ReadOnly(Policy):
    """Every client can read the sensors, and only this program can publish."""

    clients = Identity(grants({"sensors.*": "r"}))

    def anonymous(self, listener):
        return self.clients


server = make_service({"tcp": "tcp:8081", "web": "tcp:8082"}, policy=ReadOnly())
server.bridge.subscribe("sensors.freezer", lambda event: log.info("freezer: {value}", value=event.value))

application = service.Application("sensors")
server.setServiceParent(application)
internet.UDPServer(9000, Sensors(), interface="127.0.0.1").setServiceParent(application)
