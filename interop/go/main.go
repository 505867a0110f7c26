// Uses a cluster through etcd's own Go client, clientv3: keys, transactions, watches, leases, locks, a compaction, and
// the loss of the leader.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/clientv3/concurrency"
	"go.etcd.io/etcd/etcdserver/api/v3rpc/rpctypes"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func expect(holds bool, what string, seen ...interface{}) {
	if !holds {
		panic(fmt.Sprint(what, ": ", seen))
	}
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   strings.Split(os.Getenv("ENDPOINTS"), ","),
		DialTimeout: 10 * time.Second,
	})
	must(err)
	defer client.Close()

	first, err := client.Put(ctx, "go/a", "1")
	must(err)
	_, err = client.Put(ctx, "go/b", "2")
	must(err)
	all, err := client.Get(ctx, "go/", clientv3.WithPrefix())
	must(err)
	expect(len(all.Kvs) == 2 && string(all.Kvs[1].Value) == "2", "both keys", all)

	for version, succeeds := range map[int64]bool{1: true, 7: false} {
		txn, err := client.Txn(ctx).If(clientv3.Compare(clientv3.Version("go/b"), "=", version)).
			Then(clientv3.OpGet("go/a")).Else(clientv3.OpGet("go/b")).Commit()
		must(err)
		expect(txn.Succeeded == succeeds && txn.Responses[0].GetResponseRange().Count == 1, "a transaction", txn)
	}

	from := clientv3.WithRev(first.Header.Revision)
	watch := client.Watch(clientv3.WithRequireLeader(ctx), "go/", clientv3.WithPrefix(), from)
	events := 0
	wait := func(key string) {
		for response := range watch {
			must(response.Err())
			for _, event := range response.Events {
				events++
				if string(event.Kv.Key) == key {
					return
				}
			}
		}
		panic("the watch has ended before " + key)
	}
	wait("go/b")
	expect(events == 2, "events in order", events)

	lease, err := client.Grant(ctx, 60)
	must(err)
	_, err = client.Put(ctx, "leased", "v", clientv3.WithLease(lease.ID))
	must(err)
	kept, err := client.KeepAliveOnce(ctx, lease.ID)
	must(err)
	expect(kept.TTL == 60, "renewed", kept)
	_, err = client.Revoke(ctx, lease.ID)
	must(err)
	gone, err := client.Get(ctx, "leased")
	must(err)
	expect(gone.Count == 0, "deleted with its lease", gone)

	last, err := client.Put(ctx, "compacted", "v")
	must(err)
	_, err = client.Compact(ctx, last.Header.Revision)
	must(err)
	_, err = client.Get(ctx, "go/a", clientv3.WithRev(first.Header.Revision))
	expect(err == rpctypes.ErrCompacted, "a compacted revision", err)

	session, err := concurrency.NewSession(client, concurrency.WithTTL(60))
	must(err)
	mutex := concurrency.NewMutex(session, "lock")
	must(mutex.Lock(ctx))
	must(exec.Command(os.Getenv("FAILOVER")).Run())
	for err = fmt.Errorf("not done"); err != nil; {
		must(ctx.Err())
		_, err = client.Put(ctx, "go/after", "3")
	}
	wait("go/after")
	must(mutex.Unlock(ctx))
	must(session.Close())
}
