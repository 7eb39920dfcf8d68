"""HTTP/2 by the byte: what no client library would send, for tests of the gRPC ports."""

import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
CANCEL = 8


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name, value):
    """A header field as HPACK's literal without indexing, no Huffman code."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def call_headers(path):
    """The header block of a gRPC call: POST, http, `path`."""
    return (b"\x83\x86" + literal(b":path", path) + literal(b":authority", b"test") +
            literal(b"te", b"trailers") + literal(b"content-type", b"application/grpc"))


class Connection:
    """A connection past the preface. `dropped` says whether the peer has ended it."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0))
        self.dropped = False

    def send(self, data):
        """False once the peer is gone. Reads and forgets what comes meanwhile."""
        try:
            self.socket.setblocking(False)
            while data:
                self.drop_input()
                try:
                    data = data[self.socket.send(data):]
                except BlockingIOError:
                    self.wait()
        except OSError:
            self.dropped = True
        return not self.dropped

    def wait(self):
        import select
        readable, _, _ = select.select([self.socket], [self.socket], [], 10)
        if readable:
            self.drop_input()

    def drop_input(self):
        try:
            while data := self.socket.recv(1 << 16):
                pass
            raise ConnectionResetError("the peer has closed")
        except BlockingIOError:
            pass

    def close(self):
        self.socket.close()
