package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/centrifugal/centrifuge-go"
)

// An SDK holds several named clients of one protocol.
type sdk struct {
	out            *output
	speaksProtobuf bool
	mu             sync.Mutex
	clients        map[string]*centrifuge.Client
}

func newSDK(out *output, speaksProtobuf bool) *sdk {
	return &sdk{out: out, speaksProtobuf: speaksProtobuf, clients: map[string]*centrifuge.Client{}}
}

type verb func(context.Context, *centrifuge.Client, command) (facts, error)

func (s *sdk) obey(asked command) (facts, error) {
	// Longer than the SDK's own limit, 5 s.
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if asked.Do == "connect" {
		s.connect(asked)
		return facts{}, nil
	}
	verbs := map[string]verb{
		"subscribe":      s.subscribe,
		"unsubscribe":    unsubscribe,
		"resubscribe":    resubscribe,
		"publish":        publish,
		"send":           send,
		"history":        history,
		"rpc":            rpc,
		"presence":       presence,
		"presence_stats": presenceStats,
		"disconnect":     disconnect,
	}
	carryOut, known := verbs[asked.Do]
	if !known {
		return nil, unsupported("the command " + asked.Do)
	}
	s.mu.Lock()
	client, known := s.clients[asked.Client]
	s.mu.Unlock()
	if !known {
		return nil, fmt.Errorf("no client has the name %q", asked.Client)
	}
	return carryOut(ctx, client, asked)
}

func (s *sdk) connect(asked command) {
	config := centrifuge.Config{
		Token:              asked.Options.Token,
		Data:               asked.Options.Data,
		MaxServerPingDelay: time.Duration(asked.Options.MaxServerPingDelay) * time.Millisecond,
		// An HTTP proxy of the environment is not used on loopback.
		Proxy: func(*http.Request) (*url.URL, error) { return nil, nil },
	}
	tell := s.teller(facts{"client": asked.Client})
	if asked.Tokens != nil {
		config.GetToken = func(centrifuge.ConnectionTokenEvent) (string, error) {
			tell("token", facts{"channel": ""})
			return asked.Tokens.sign("")
		}
	}
	create := centrifuge.NewJsonClient
	if s.speaksProtobuf {
		create = centrifuge.NewProtobufClient
	}
	client := create(asked.URL, config)
	begun, once := make(chan struct{}), sync.Once{}
	watchClient(client, func(event string, what facts) {
		tell(event, what)
		if event == "connecting" {
			once.Do(func() { close(begun) })
		}
	})
	s.mu.Lock()
	s.clients[asked.Client] = client
	s.mu.Unlock()
	// It waits for the first dial, whose failure is an event too.
	go func() { _ = client.Connect() }()
	// Before it has begun, commands are refused instead of being kept until it is connected.
	<-begun
}

func (s *sdk) subscribe(_ context.Context, client *centrifuge.Client, asked command) (facts, error) {
	wanted := asked.Options
	config := centrifuge.SubscriptionConfig{
		Data:        wanted.Data,
		Positioned:  wanted.Positioned,
		Recoverable: wanted.Recoverable,
		JoinLeave:   wanted.JoinLeave,
		Delta:       centrifuge.DeltaType(wanted.Delta),
	}
	tell := s.teller(facts{"client": asked.Client, "channel": asked.Channel})
	if wanted.TagsFilter != nil {
		node, err := wanted.TagsFilter.build()
		if err != nil {
			return nil, err
		}
		config.TagsFilter = node
	}
	if asked.Tokens != nil {
		config.GetToken = func(event centrifuge.SubscriptionTokenEvent) (string, error) {
			tell("token", nil)
			return asked.Tokens.sign(event.Channel)
		}
	}
	if states := wanted.States; len(states) > 0 {
		config.GetState = func(centrifuge.SubscriptionGetStateEvent) (centrifuge.StreamPosition, error) {
			tell("state", nil)
			state := states[0]
			if len(states) > 1 {
				states = states[1:]
			}
			return centrifuge.StreamPosition(state), nil
		}
	}
	sub, err := client.NewSubscription(asked.Channel, config)
	if err != nil {
		return nil, err
	}
	watchSubscription(sub, tell)
	return facts{}, sub.Subscribe()
}

func subscription(client *centrifuge.Client, channel string) (*centrifuge.Subscription, error) {
	sub, known := client.GetSubscription(channel)
	if !known {
		return nil, fmt.Errorf("no subscription to %q", channel)
	}
	return sub, nil
}

func unsubscribe(_ context.Context, client *centrifuge.Client, asked command) (facts, error) {
	sub, err := subscription(client, asked.Channel)
	if err != nil {
		return nil, err
	}
	return facts{}, sub.Unsubscribe()
}

func resubscribe(_ context.Context, client *centrifuge.Client, asked command) (facts, error) {
	sub, err := subscription(client, asked.Channel)
	if err != nil {
		return nil, err
	}
	return facts{}, sub.Subscribe()
}

func publish(ctx context.Context, client *centrifuge.Client, asked command) (facts, error) {
	_, err := client.Publish(ctx, asked.Channel, asked.Data)
	return facts{}, err
}

func send(ctx context.Context, client *centrifuge.Client, asked command) (facts, error) {
	return facts{}, client.Send(ctx, asked.Data)
}

func history(ctx context.Context, client *centrifuge.Client, asked command) (facts, error) {
	how := []centrifuge.HistoryOption{
		centrifuge.WithHistoryLimit(asked.Limit), centrifuge.WithHistoryReverse(asked.Reverse),
	}
	if asked.Since != nil {
		since := centrifuge.StreamPosition(*asked.Since)
		how = append(how, centrifuge.WithHistorySince(&since))
	}
	found, err := client.History(ctx, asked.Channel, how...)
	publications := []facts{}
	for _, pub := range found.Publications {
		publications = append(publications, facts{"data": got(pub.Data), "offset": pub.Offset})
	}
	return facts{"offset": found.Offset, "epoch": found.Epoch, "publications": publications}, err
}

func rpc(ctx context.Context, client *centrifuge.Client, asked command) (facts, error) {
	result, err := client.RPC(ctx, asked.Method, asked.Data)
	return facts{"data": got(result.Data)}, err
}

func presence(ctx context.Context, client *centrifuge.Client, asked command) (facts, error) {
	found, err := client.Presence(ctx, asked.Channel)
	users := facts{}
	for id, info := range found.Clients {
		users[id] = info.User
	}
	return facts{"clients": users}, err
}

func presenceStats(ctx context.Context, client *centrifuge.Client, asked command) (facts, error) {
	found, err := client.PresenceStats(ctx, asked.Channel)
	return facts{"clients": found.NumClients, "users": found.NumUsers}, err
}

func disconnect(_ context.Context, client *centrifuge.Client, _ command) (facts, error) {
	return facts{}, client.Disconnect()
}
