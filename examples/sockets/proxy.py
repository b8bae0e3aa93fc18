"""A proxy for one connection after the other that prints what passes: < to the client, > to the server.

python3 examples/sockets/proxy.py 9000 8081
"""

import contextlib
import socket
import sys
import threading


def forward(source, target, arrow):
    with contextlib.suppress(ConnectionError):  # a broken connection ends like a closed one
        while data := source.recv(4096):
            print(arrow, data, flush=True)
            target.sendall(data)
    print(arrow, "end of the stream", flush=True)
    with contextlib.suppress(OSError):  # the target may have closed already
        target.shutdown(socket.SHUT_WR)


own_port, server_port = map(int, sys.argv[1:])
with socket.create_server(("127.0.0.1", own_port)) as listener:
    print("listening on port", own_port, flush=True)
    while True:
        client, address = listener.accept()
        with client, socket.create_connection(("127.0.0.1", server_port)) as server:
            answers = threading.Thread(target=forward, args=(server, client, "<"))
            answers.start()
            forward(client, server, ">")
            answers.join()
