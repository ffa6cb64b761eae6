package server

import (
	"encoding/json"
	"encoding/xml"
	"net/http"

	"github.com/seed-2f228079/neargate/api/wire"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// Errors for requests that name no service of ours, in the protocol that they look like.

func guessProtocol(r *http.Request) wire.Protocol {
	switch {
	case r.Header.Get("X-Amz-Target") != "":
		return wire.JSON
	case isForm(r):
		return wire.Query
	}
	return wire.RESTJSON
}

type xmlError struct {
	XMLName xml.Name `xml:"ErrorResponse"`
	Type    string   `xml:"Error>Type"`
	Code    string   `xml:"Error>Code"`
	Message string   `xml:"Error>Message"`
	ID      string   `xml:"RequestId"`
}

// foreign renders e without a service's model.
func foreign(p wire.Protocol, e *awserr.Error, requestID string) wire.Answer {
	a := wire.Answer{Status: e.Status, Header: http.Header{}}
	if a.Status == 0 {
		a.Status = http.StatusBadRequest
	}
	var err error
	if p == wire.Query {
		fault := "Sender"
		if a.Status >= 500 {
			fault = "Receiver"
		}
		a.Header.Set("Content-Type", "text/xml")
		a.Body, err = xml.Marshal(xmlError{Type: fault, Code: e.Code, Message: e.Message, ID: requestID})
	} else {
		a.Header.Set("Content-Type", "application/x-amz-json-1.1")
		a.Header.Set("X-Amzn-Errortype", e.Code)
		a.Body, err = json.Marshal(struct {
			Type    string `json:"__type"`
			Message string `json:"message"`
		}{e.Code, e.Message})
	}
	if err != nil {
		panic(err) // strings only
	}
	return a
}
