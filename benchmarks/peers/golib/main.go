// Command golib is the Go library centrifugal/centrifuge as a peer of the benchmarks: one node,
// its Redis broker, the defaults of the library, JSON over WebSocket.
//
// Rules: everybody may subscribe, publish and call; an RPC answers with what it was given;
// channels have no history; presence and join/leave stay off.
package main

import (
	"context"
	"flag"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/centrifugal/centrifuge"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8300", "address to listen on")
	redis := flag.String("redis", "127.0.0.1:6379", "address of Redis or Valkey")
	flag.Parse()

	node, err := newNode(*redis)
	if err != nil {
		log.Fatalf("the node cannot be made: %v", err)
	}
	if err := node.Run(); err != nil {
		log.Fatalf("the node cannot run: %v", err)
	}

	// The load generator sends no Origin header, which the default check allows.
	http.Handle("/connection/websocket", centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{
		UseWriteBufferPool: true,
	}))
	server := &http.Server{Addr: *listen, ReadHeaderTimeout: 10 * time.Second}
	go stopOnSignal(server, node)
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		log.Fatalf("the server cannot listen on %s: %v", *listen, err)
	}
}

func newNode(redis string) (*centrifuge.Node, error) {
	node, err := centrifuge.New(centrifuge.Config{LogLevel: centrifuge.LogLevelError})
	if err != nil {
		return nil, err
	}
	shard, err := centrifuge.NewRedisShard(node, centrifuge.RedisShardConfig{Address: redis})
	if err != nil {
		return nil, err
	}
	broker, err := centrifuge.NewRedisBroker(node, centrifuge.RedisBrokerConfig{
		Shards: []*centrifuge.RedisShard{shard},
	})
	if err != nil {
		return nil, err
	}
	node.SetBroker(broker)
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{Credentials: &centrifuge.Credentials{}}, nil
	})
	node.OnConnect(allowEverything)
	return node, nil
}

func allowEverything(client *centrifuge.Client) {
	client.OnSubscribe(func(_ centrifuge.SubscribeEvent, reply centrifuge.SubscribeCallback) {
		reply(centrifuge.SubscribeReply{}, nil)
	})
	client.OnPublish(func(_ centrifuge.PublishEvent, reply centrifuge.PublishCallback) {
		reply(centrifuge.PublishReply{}, nil)
	})
	client.OnRPC(func(event centrifuge.RPCEvent, reply centrifuge.RPCCallback) {
		reply(centrifuge.RPCReply{Data: event.Data}, nil)
	})
}

func stopOnSignal(server *http.Server, node *centrifuge.Node) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	<-signals
	deadline, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = node.Shutdown(deadline)
	_ = server.Shutdown(deadline)
}
