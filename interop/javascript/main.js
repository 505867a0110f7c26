// Uses a cluster through the npm package etcd3: keys, transactions, watches, leases, locks, a compaction, and the loss of
// the leader.
const assert = require("node:assert");
const { execFileSync } = require("node:child_process");
const { Etcd3 } = require("etcd3");

const client = new Etcd3({ hosts: process.env.ENDPOINTS.split(",").map((endpoint) => `http://${endpoint}`) });
const pause = () => new Promise((done) => setTimeout(done, 20));

/** Waits until `ask` is done without an error. */
async function eventually(ask) {
  for (const until = Date.now() + 60_000; ; await pause()) {
    try {
      return await ask();
    } catch (error) {
      if (Date.now() > until) throw error;
    }
  }
}

async function main() {
  const first = Number((await client.put("js/a").value("1")).header.revision);
  const watcher = await client.watch().prefix("js/").startRevision(String(first)).create();
  const seen = [];
  watcher.on("put", (kv) => seen.push(`put ${kv.key} ${kv.value}`));
  watcher.on("delete", (kv) => seen.push(`delete ${kv.key}`));
  await client.put("js/b").value("2");
  assert.deepEqual(await client.getAll().prefix("js/").strings(), { "js/a": "1", "js/b": "2" });

  for (const [version, succeeds] of [[1, true], [7, false]]) {
    const txn = client.if("js/b", "Version", "==", version).then(client.get("js/a")).else(client.get("js/b"));
    assert.equal((await txn.commit()).succeeded, succeeds);
  }
  await client.delete().key("js/a");
  const expected = ["put js/a 1", "put js/b 2", "delete js/a "].map((line) => line.trim());
  while (seen.length < 3) await pause();
  assert.deepEqual(seen, expected);

  const lease = client.lease(60);
  await lease.put("leased").value("v");
  await lease.keepaliveOnce();
  await lease.revoke();
  assert.equal(await client.get("leased"), null);

  const last = (await client.put("compacted").value("v")).header.revision;
  await client.kv.compact({ revision: last, physical: true });
  await assert.rejects(async () => client.get("js/b").revision(first).exec(), /compacted/);

  await client.lock("lock").ttl(60).do(async () => {
    execFileSync(process.env.FAILOVER);
    await eventually(() => client.put("js/after").value("3"));
  });
  assert.equal(await eventually(() => client.get("js/after").string()), "3");
  while (!seen.includes("put js/after 3")) await pause();
  await watcher.cancel();
  client.close();
}

setTimeout(() => {
  throw new Error("not done in time");
}, 120_000).unref();
main().catch((error) => {
  console.error(error);
  process.exit(1);
});
