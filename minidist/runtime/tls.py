"""TLS contexts from PEM files. `ssl` is imported only where TLS is used: it costs tens of milliseconds."""

from typing import TYPE_CHECKING

from minidist.runtime.config import Config, ConfigError

if TYPE_CHECKING:
    import ssl


def server_context(config: Config) -> "ssl.SSLContext | None":
    """The listener's context of a node's options; None without --tls-cert. Raises ConfigError for bad files."""
    if not config.tls_cert:
        return None
    import ssl

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            "--tls-cert/--tls-key", config.tls_cert, f"a PEM certificate and its key ({error})"
        ) from error
    if config.tls_ca:
        try:
            context.load_verify_locations(config.tls_ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError("--tls-ca", config.tls_ca, f"a PEM file of authorities ({error})") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context
