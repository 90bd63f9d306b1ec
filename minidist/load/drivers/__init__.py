"""One file per protocol; the table that names them is in minidist/load/driver.py."""
