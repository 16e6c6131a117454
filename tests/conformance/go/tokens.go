package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"time"
)

// Tokens are made as an application's backend makes them.
type tokens struct {
	Key  string `json:"key"`
	User string `json:"user"`
	TTL  int64  `json:"ttl"` // seconds
}

// Sign makes a connection token, or with a channel a subscription token.
func (t *tokens) sign(channel string) (string, error) {
	claims := facts{"sub": t.User, "exp": time.Now().Unix() + t.TTL}
	if channel != "" {
		claims["channel"] = channel
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	encode := base64.RawURLEncoding.EncodeToString
	body := encode([]byte(`{"alg":"HS256"}`)) + "." + encode(payload)
	signature := hmac.New(sha256.New, []byte(t.Key))
	signature.Write([]byte(body))
	return body + "." + encode(signature.Sum(nil)), nil
}
