package main

import (
	"encoding/json"
	"errors"
	"maps"

	"github.com/centrifugal/centrifuge-go"
)

type teller func(event string, what facts)

// A teller reports events with these facts added.
func (s *sdk) teller(who facts) teller {
	return func(event string, what facts) {
		message := facts{"event": event}
		maps.Copy(message, who)
		maps.Copy(message, what)
		s.out.say(message)
	}
}

// Data is JSON in these tests, with either codec.
func got(data []byte) any {
	if len(data) == 0 {
		return nil
	}
	return json.RawMessage(data)
}

func failure(err error) facts {
	var refused *centrifuge.Error
	if errors.As(err, &refused) {
		return facts{"code": refused.Code, "message": refused.Message}
	}
	return facts{"code": 0, "message": err.Error()}
}

func streamPosition(at *centrifuge.StreamPosition) position {
	if at == nil {
		return position{}
	}
	return position(*at)
}

func watchClient(client *centrifuge.Client, tell teller) {
	client.OnConnecting(func(e centrifuge.ConnectingEvent) {
		tell("connecting", facts{"code": e.Code, "reason": e.Reason})
	})
	client.OnConnected(func(e centrifuge.ConnectedEvent) {
		tell("connected", facts{"id": e.ClientID, "data": got(e.Data)})
	})
	client.OnDisconnected(func(e centrifuge.DisconnectedEvent) {
		tell("disconnected", facts{"code": e.Code, "reason": e.Reason})
	})
	client.OnError(func(e centrifuge.ErrorEvent) { tell("error", failure(e.Error)) })
	client.OnMessage(func(e centrifuge.MessageEvent) { tell("message", facts{"data": got(e.Data)}) })
	client.OnSubscribed(func(e centrifuge.ServerSubscribedEvent) {
		tell("server_subscribed", facts{
			"channel": e.Channel, "wasRecovering": e.WasRecovering, "recovered": e.Recovered,
		})
	})
	client.OnUnsubscribed(func(e centrifuge.ServerUnsubscribedEvent) {
		tell("server_unsubscribed", facts{"channel": e.Channel})
	})
	client.OnPublication(func(e centrifuge.ServerPublicationEvent) {
		tell("server_publication", facts{"channel": e.Channel, "data": got(e.Data)})
	})
}

func watchSubscription(sub *centrifuge.Subscription, tell teller) {
	sub.OnSubscribed(func(e centrifuge.SubscribedEvent) {
		at := streamPosition(e.StreamPosition)
		tell("subscribed", facts{
			"recoverable":   e.Recoverable,
			"positioned":    e.Positioned,
			"offset":        at.Offset,
			"epoch":         at.Epoch,
			"wasRecovering": e.WasRecovering,
			"recovered":     e.Recovered,
		})
	})
	sub.OnSubscribing(func(e centrifuge.SubscribingEvent) {
		tell("subscribing", facts{"code": e.Code, "reason": e.Reason})
	})
	sub.OnUnsubscribed(func(e centrifuge.UnsubscribedEvent) {
		tell("unsubscribed", facts{"code": e.Code, "reason": e.Reason})
	})
	sub.OnError(func(e centrifuge.SubscriptionErrorEvent) { tell("error", failure(e.Error)) })
	sub.OnPublication(func(e centrifuge.PublicationEvent) {
		from := ""
		if e.Info != nil {
			from = e.Info.Client
		}
		tell("publication", facts{"data": got(e.Data), "offset": e.Offset, "from": from})
	})
	member := func(event string, info centrifuge.ClientInfo) {
		tell(event, facts{"who": info.Client, "user": info.User, "info": got(info.ConnInfo)})
	}
	sub.OnJoin(func(e centrifuge.JoinEvent) { member("join", e.ClientInfo) })
	sub.OnLeave(func(e centrifuge.LeaveEvent) { member("leave", e.ClientInfo) })
}
