// The Go SDK under remote control: one JSON command per line in, answers and events out.
//
//	In:  {"id": 1, "do": "publish", "client": "ann", "channel": "news", "data": 5}
//	Out: {"id": 1, "ok": {...}}, {"id": 1, "error": {"code": 108, "message": "..."}} or
//	     {"id": 1, "unsupported": "what this SDK does not have"}
//	     {"event": "publication", "client": "ann", "channel": "news", ...} whenever the SDK says so
//
// Ends with its standard input. With the argument "protobuf" the clients speak Protobuf; data is JSON all
// the same. The commands and events are those of ../sdk_client.mjs.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"sync"

	"github.com/centrifugal/centrifuge-go"
)

const longestLine = 16 * 1024 * 1024

type facts map[string]any

// A command has the fields of all verbs.
type command struct {
	ID      int             `json:"id"`
	Do      string          `json:"do"`
	Client  string          `json:"client"`
	URL     string          `json:"url"`
	Channel string          `json:"channel"`
	Method  string          `json:"method"`
	Data    json.RawMessage `json:"data"`
	Limit   int32           `json:"limit"`
	Reverse bool            `json:"reverse"`
	Since   *position       `json:"since"`
	Options options         `json:"options"`
	Tokens  *tokens         `json:"tokens"`
}

// Options of a connection and of a subscription, by the names of the npm SDK.
type options struct {
	Data               json.RawMessage `json:"data"`
	Token              string          `json:"token"`
	MaxServerPingDelay int             `json:"maxServerPingDelay"` // milliseconds
	Recoverable        bool            `json:"recoverable"`
	Positioned         bool            `json:"positioned"`
	JoinLeave          bool            `json:"joinLeave"`
	Delta              string          `json:"delta"`
	TagsFilter         *filter         `json:"tagsFilter"`
	// What GetState is to return, in turn; the last one for ever.
	States []position `json:"states"`
}

type position struct {
	Offset uint64 `json:"offset"`
	Epoch  string `json:"epoch"`
}

// An unsupported error says what this SDK does not have.
type unsupported string

func (u unsupported) Error() string { return string(u) }

// The output is shared by all goroutines.
type output struct {
	mu      sync.Mutex
	encoder *json.Encoder
}

func (o *output) say(message facts) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.encoder.Encode(message); err != nil {
		panic(err)
	}
}

func (o *output) answer(id int, result facts, err error) {
	var refused *centrifuge.Error
	var missing unsupported
	switch {
	case err == nil:
		o.say(facts{"id": id, "ok": result})
	case errors.As(err, &missing):
		o.say(facts{"id": id, "unsupported": string(missing)})
	case errors.As(err, &refused):
		o.say(facts{"id": id, "error": facts{"code": refused.Code, "message": refused.Message}})
	default:
		o.say(facts{"id": id, "error": facts{"code": 0, "message": err.Error()}})
	}
}

func main() {
	out := &output{encoder: json.NewEncoder(os.Stdout)}
	sdk := newSDK(out, len(os.Args) > 1 && os.Args[1] == "protobuf")
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, longestLine)
	for lines.Scan() {
		var asked command
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			panic(err)
		}
		go func() {
			result, err := sdk.obey(asked)
			out.answer(asked.ID, result, err)
		}()
	}
	if err := lines.Err(); err != nil {
		panic(err)
	}
}
