"""TLS contexts from PEM files."""

import ssl

from minidist.runtime.config import Config, ConfigError


def server_context(config: Config) -> ssl.SSLContext | None:
    """The listener's context of a node's options; None without --tls-cert. Raises ConfigError for bad files."""
    if not config.tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # An encrypted key would ask for its password on the terminal: a daemon has none.
        context.load_cert_chain(config.tls_cert, config.tls_key, password="")
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
