package wire

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/seed-2f228079/neargate/api/model"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// Answer is what goes back for an error.
type Answer struct {
	Status int
	Header http.Header // Content-Type, and what the protocol adds; the request id's header is the server's
	Body   []byte
}

// Error renders e in the service's protocol. The status is e's, or the model's, or 400. The code is answered as e has
// it, with the model's spelling where e names the shape instead.
func (c *Codec) Error(e *awserr.Error, requestID string) Answer {
	s := c.model.ErrorShape(e.Code)
	code := e.Code
	if s != nil && s.Error != nil && s.Error.Code != "" {
		code = s.Error.Code
	}
	a := Answer{Status: c.Status(e), Header: http.Header{"Content-Type": {c.ContentType()}}}
	switch c.protocol {
	case Query:
		a.Body = c.queryError(code, e, s, a.Status, requestID)
	case EC2:
		a.Body = ec2Error(code, e.Message, requestID)
	case RESTJSON:
		a.Header.Set("X-Amzn-Errortype", code)
		a.Body = jsonError("", e, s)
	default:
		a.Header.Set("X-Amzn-Errortype", code)
		a.Body = jsonError(code, e, s)
	}
	return a
}

// Status is the HTTP status of an error.
func (c *Codec) Status(e *awserr.Error) int {
	if e.Status != 0 {
		return e.Status
	}
	s := c.model.ErrorShape(e.Code)
	switch {
	case s == nil:
		return http.StatusBadRequest
	case s.Error != nil && s.Error.Status != 0:
		return s.Error.Status
	case s.Fault:
		return http.StatusInternalServerError
	}
	return http.StatusBadRequest
}

// jsonError is {"__type": code, "message": …} and the shape's other members. The message is under the name the model
// gives it: most services write it small, some big.
func jsonError(code string, e *awserr.Error, s *model.Shape) []byte {
	b := []byte{'{'}
	if code != "" {
		b = append(b, `"__type":`...)
		b = append(appendString(b, code), ',')
	}
	name := "message"
	if s != nil {
		for _, m := range s.Members {
			if strings.EqualFold(m.Name, "message") {
				name = m.Wire()
			}
		}
	}
	b = append(appendString(b, name), ':')
	b = appendString(b, e.Message)
	for _, k := range slices.Sorted(maps.Keys(e.Fields)) {
		v, err := json.Marshal(e.Fields[k])
		if err != nil {
			continue // a detail that cannot be shown; the error itself can
		}
		b = append(appendString(append(b, ','), k), ':')
		b = append(b, v...)
	}
	return append(b, '}')
}

func (c *Codec) queryError(code string, e *awserr.Error, s *model.Shape, status int, requestID string) []byte {
	fault := "Sender"
	if status >= 500 && (s == nil || s.Error == nil || !s.Error.SenderFault) {
		fault = "Receiver"
	}
	b := append([]byte(`<ErrorResponse xmlns="`), c.xmlNamespace()...)
	b = append(b, `"><Error><Type>`+fault+`</Type><Code>`...)
	b = appendXMLText(b, code)
	b = append(b, `</Code><Message>`...)
	b = appendXMLText(b, e.Message)
	b = append(b, `</Message>`...)
	for _, k := range slices.Sorted(maps.Keys(e.Fields)) {
		if v, ok := e.Fields[k].(string); ok {
			b = appendOpen(b, k)
			b = appendXMLText(b, v)
			b = appendClose(b, k)
		}
	}
	b = append(b, `</Error><RequestId>`...)
	b = appendXMLText(b, requestID)
	return append(b, `</RequestId></ErrorResponse>`...)
}

func ec2Error(code, message, requestID string) []byte {
	b := append([]byte(nil), `<?xml version="1.0" encoding="UTF-8"?>`+"\n<Response><Errors><Error><Code>"...)
	b = appendXMLText(b, code)
	b = append(b, `</Code><Message>`...)
	b = appendXMLText(b, message)
	b = append(b, `</Message></Error></Errors><RequestID>`...)
	b = appendXMLText(b, requestID)
	return append(b, `</RequestID></Response>`...)
}
