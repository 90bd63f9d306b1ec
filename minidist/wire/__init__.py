"""What travels: codecs between bytes and messages. Pure."""
