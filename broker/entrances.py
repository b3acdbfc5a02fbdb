"""How clients come in at each listener: who they are, what they may do, and who takes their requests."""

from collections.abc import Callable, Mapping
from functools import partial

from broker.config import Config, ConfigError
from broker.context import CloseConnection
from broker.dispatch import Dispatcher
from broker.listeners import Listener
from broker.net import Client, Entrance, Receive
from broker.security.access import ANONYMOUS
from broker.security.authentication import Authentication, SaslSettings
from broker.security.plain import PlainExchange
from broker.security.sasl import NewExchange
from broker.security.scram import MECHANISMS, ScramExchange
from broker.security.security import Security
from broker.security.tls import NoRuleApplies, PrincipalMapping, ServerTls
from broker.services import Services
from storage.clock import Clock

OAUTHBEARER = "OAUTHBEARER"


class Entrances:
    """Makes the entrances of one broker."""

    def __init__(self, services: Services, dispatcher: Dispatcher) -> None:
        self._config = services.config
        self._clock = services.clock
        self._dispatcher = dispatcher
        self._security = services.security

    def of(self, listener: Listener) -> Entrance:
        """Raises ConfigError naming the key."""
        protocol, config = listener.protocol, self._config.at(listener.name)
        admit: Callable[[Client], Receive] = self._admit_anybody
        if protocol.sasl:
            admit = partial(self._admit_by_sasl, self._sasl_settings(config))
        elif protocol.tls:
            admit = partial(self._admit_by_certificate, PrincipalMapping(config.ssl_principal_mapping_rules))
        return Entrance(admit, ServerTls(config).context if protocol.tls else None)

    def _sasl_settings(self, config: Config) -> SaslSettings:
        return SaslSettings(
            mechanisms=mechanisms(config, self._security, self._clock),
            welcome=self._welcome,
            clock=self._clock,
            receive_bytes_max=config.sasl_server_max_receive_size,
            reauthentication_ms=config.connections_max_reauth_ms,
            failure_delay_s=config.connection_failed_authentication_delay_ms / 1000,
        )

    def _welcome(self, client: Client, principal: str) -> None:
        client.access = self._security.access(principal, client.client_host)

    def _admit_anybody(self, client: Client) -> Receive:
        self._welcome(client, ANONYMOUS)
        return self._dispatcher.dispatch

    def _admit_by_certificate(self, mapping: PrincipalMapping, client: Client) -> Receive:
        certificate = client.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        try:
            self._welcome(client, mapping.principal(certificate))
        except NoRuleApplies as error:
            return partial(_refuse, str(error))
        return self._dispatcher.dispatch

    def _admit_by_sasl(self, settings: SaslSettings, client: Client) -> Receive:
        return Authentication(settings, self._dispatcher, client).receive


def mechanisms(config: Config, security: Security, clock: Clock) -> Mapping[str, NewExchange]:
    """The enabled SASL mechanisms by name, in the order of the configuration; raises ConfigError."""
    known: dict[str, NewExchange] = {"PLAIN": lambda: PlainExchange(security.plain.verify)}
    for scram in MECHANISMS:
        known[scram.mechanism_name] = partial(ScramExchange, scram, security.users.get)
    enabled = [name.strip().upper() for name in config.sasl_enabled_mechanisms.split(",") if name.strip()]
    if OAUTHBEARER in enabled:
        known[OAUTHBEARER] = _oauthbearer(config, clock)
    for name in enabled:
        if name not in known:
            raise ConfigError(f"sasl.enabled.mechanisms: {name!r} is none of {', '.join(known)}, {OAUTHBEARER}")
    return {name: known[name] for name in enabled}


def _oauthbearer(config: Config, clock: Clock) -> NewExchange:
    from broker.security.oauthbearer import (  # who uses tokens pays for cryptography
        Keys,
        OAuthBearerExchange,
        TokenVerifier,
    )

    url = config.sasl_oauthbearer_jwks_endpoint_url
    if not url.startswith(("https://", "http://", "file:")):
        raise ConfigError(f"sasl.oauthbearer.jwks.endpoint.url: {url!r} is no https:// or file: URL")
    keys = Keys(url, clock, config.sasl_oauthbearer_jwks_endpoint_refresh_ms)
    verifier = TokenVerifier(config, keys, clock)
    return lambda: OAuthBearerExchange(verifier.verify)


def _refuse(reason: str, _frame: memoryview, _client: Client) -> None:
    raise CloseConnection(reason)
