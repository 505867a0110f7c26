"""Uses a cluster through the Python package etcd3: keys, transactions, watches, leases, locks, a compaction, and the loss
of the leader. The package uses one endpoint, and neither resumes a watch nor repeats a request."""

import os
import subprocess
import time

import etcd3

ENDPOINTS = [endpoint.rsplit(":", 1) for endpoint in os.environ["ENDPOINTS"].split(",")]


def connect(place):
    host, port = ENDPOINTS[place % len(ENDPOINTS)]
    return etcd3.client(host=host, port=int(port), timeout=10)


client = connect(0)
assert client.put("py/a", "1").header.revision > 1
first = client.get("py/a")[1].mod_revision
client.put("py/b", "2")
assert [value for value, _ in client.get_prefix("py/")] == [b"1", b"2"]

for version, expected in [(1, True), (7, False)]:
    succeeded, responses = client.transaction(
        compare=[client.transactions.version("py/b") == version],
        success=[client.transactions.get("py/a")],
        failure=[client.transactions.get("py/b")],
    )
    assert succeeded == expected and len(responses[0]) == 1, (succeeded, responses)

events, cancel = client.watch_prefix("py/", start_revision=first)
client.delete("py/a")
seen = [next(events) for _ in range(3)]
assert [event.key for event in seen] == [b"py/a", b"py/b", b"py/a"], seen
assert isinstance(seen[2], etcd3.events.DeleteEvent), seen
cancel()

lease = client.lease(60)
client.put("leased", "v", lease=lease)
assert lease.refresh()[0].TTL == 60 and lease.keys == [b"leased"]
lease.revoke()
assert client.get("leased")[0] is None

with client.lock("lock", ttl=60) as lock:
    assert lock.is_acquired()

last = client.put("compacted", "v").header.revision
client.compact(last)
try:
    list(client.watch_response("py/b", start_revision=first)[0])
    raise AssertionError("the revision is compacted")
except etcd3.exceptions.RevisionCompactedError as error:
    assert error.compacted_revision == last, error.compacted_revision

subprocess.run([os.environ["FAILOVER"]], check=True)
until, place = time.monotonic() + 60, 0
while True:
    try:
        client.put("py/after", "3")
        break
    except etcd3.exceptions.Etcd3Exception:
        assert time.monotonic() < until, "nobody takes writes"
        place += 1
        client = connect(place)
assert client.get("py/after")[0] == b"3"
