"""Passes TLS on to the server at HOST:PORT and nothing else: prints its own address and runs until it is ended.

For tools/observatory. Where a page is not on port 443, the Observatory asks the same port for plain HTTP, and takes the
plain answer of a TLS server for a site without redirection. In production that question goes to port 80, which is
closed or redirects; this relay stands for the closed port.
"""

import asyncio
import sys

HANDSHAKE = b"\x16"


async def copy(reader, writer):
    try:
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def serve(reader, writer):
    first = await reader.read(1)
    if first != HANDSHAKE:
        writer.transport.abort()
        return
    host, port = sys.argv[1].rsplit(":", 1)
    to_reader, to_writer = await asyncio.open_connection(host, int(port))
    to_writer.write(first)
    await asyncio.gather(copy(reader, to_writer), copy(to_reader, writer))


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print("{}:{}".format(*server.sockets[0].getsockname()), flush=True)
    await server.serve_forever()


asyncio.run(main())
