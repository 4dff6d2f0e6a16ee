"""valkey-glide's side of the benchmark of many requests at once. Runs in the environment of `setup_venv.py glide`.

`.venv-glide/bin/python glide_peer.py HOST:PORT KEYS ROWS REQUESTS ROW_BYTES OFFSET:BYTES,… IN_FLIGHT`, which are the
arguments of `floor/pipelined.c`: KEYS is a file of keys, each after its length, of which ROWS belong to one request.
Each request is one MGET, whose values are copied into a float32 matrix. Prints one JSON object.
"""

import asyncio
import json
import struct
import sys
import time
from pathlib import Path

import numpy as np
from glide import GlideClient, GlideClientConfiguration, NodeAddress


def read_requests(path: Path, rows: int) -> list[list[str | bytes]]:
    data, keys, at = path.read_bytes(), [], 0
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        keys.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return [list(keys[i : i + rows]) for i in range(0, len(keys), rows)]


async def measure(address: str, requests: list[list[str | bytes]], count: int, row: np.dtype, flight: int) -> dict:
    host, port = address.rsplit(":", 1)
    addresses = [NodeAddress(host, int(port))]
    # Its default of 250 ms is less than 64 large replies take on two cores.
    client = await GlideClient.create(GlideClientConfiguration(addresses=addresses, request_timeout=20_000))
    ends = np.cumsum([row[name].itemsize // 4 for name in row.names]).tolist()
    columns = [(name, slice(start, end)) for name, start, end in zip(row.names, [0, *ends], ends, strict=False)]

    async def read(keys: list[str | bytes]) -> np.ndarray:
        rows = np.frombuffer(b"".join(await client.mget(keys)), row)
        matrix = np.empty((len(keys), ends[-1]), np.float32)
        for name, column in columns:
            matrix[:, column] = rows[name]
        return matrix

    samples: list[float] = []
    numbers = iter(range(count))

    async def worker() -> None:
        for i in numbers:
            start = time.perf_counter()
            await read(requests[i % len(requests)])
            samples.append(time.perf_counter() - start)

    await asyncio.gather(*[read(requests[i % len(requests)]) for i in range(flight)])
    start = time.perf_counter()
    await asyncio.gather(*[worker() for _ in range(flight)])
    elapsed = time.perf_counter() - start
    await client.close()
    return {"elapsed_s": elapsed, "samples_us": [sample * 1e6 for sample in samples]}


def main() -> None:
    address, path, rows, count, row_bytes, blocks, flight = sys.argv[1:]
    places = [tuple(map(int, block.split(":"))) for block in blocks.split(",")]
    row = np.dtype(
        {
            "names": [f"block_{offset}" for offset, _ in places],
            "formats": [("<f4", size // 4) for _, size in places],
            "offsets": [offset for offset, _ in places],
            "itemsize": int(row_bytes),
        }
    )
    requests = read_requests(Path(path), int(rows))
    json.dump(asyncio.run(measure(address, requests, int(count), row, int(flight))), sys.stdout)


if __name__ == "__main__":
    main()
