"""How clients come in at each listener: who they are, what they may do, and who takes their requests."""

from functools import partial

from broker.config import Config
from broker.context import CloseConnection
from broker.dispatch import Dispatcher
from broker.listeners import Listener
from broker.net import Client, Entrance, Receive
from broker.security.access import Access
from broker.security.tls import NoRuleApplies, PrincipalMapping, ServerTls


class Entrances:
    """Makes the entrances of one broker."""

    def __init__(self, config: Config, dispatcher: Dispatcher) -> None:
        """Raises ConfigError naming the key."""
        self._config = config
        self._dispatcher = dispatcher
        self._mapping = PrincipalMapping(config.ssl_principal_mapping_rules)
        self._tls: ServerTls | None = None

    def of(self, listener: Listener) -> Entrance:
        """Raises ConfigError naming the key."""
        admit = self._admit_by_certificate if listener.protocol.tls else self._admit_anybody
        if not listener.protocol.tls:
            return Entrance(admit)
        if self._tls is None:
            self._tls = ServerTls(self._config)
        return Entrance(admit, self._tls.context)

    def _admit_anybody(self, client: Client) -> Receive:  # noqa: ARG002 - who it is makes no difference
        return self._dispatcher.dispatch

    def _admit_by_certificate(self, client: Client) -> Receive:
        certificate = client.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        try:
            client.access = Access(self._mapping.principal(certificate))
        except NoRuleApplies as error:
            return partial(_refuse, str(error))
        return self._dispatcher.dispatch


def _refuse(reason: str, _frame: memoryview, _client: Client) -> None:
    raise CloseConnection(reason)
