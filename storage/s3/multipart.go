package s3

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// partsAtOnce are under way at a time for one object.
	partsAtOnce = 4
	maxParts    = 10_000
	// abortPatience bounds the clearing away after an upload that failed.
	abortPatience = 30 * time.Second
)

// PartSize is how long the parts of an object of this size are to be: at least least, and so few that the store takes them.
func PartSize(size, least int64) int64 {
	const unit = 1 << 20
	return max(least, (size/maxParts/unit+1)*unit)
}

// PutParts writes a large object of parts; nothing is seen of it before all of them are there. open opens a part, given where it begins, for each
// attempt. What is left of an upload that failed is cleared away, or by AbortStale.
func (c *Client) PutParts(ctx context.Context, key string, parts []Part, open func(offset, size int64) (io.ReadCloser, error)) error {
	var began struct{ UploadId string }
	if err := c.answer(ctx, request{method: http.MethodPost, key: key, query: url.Values{"uploads": {""}}}, &began); err != nil {
		return err
	}
	if began.UploadId == "" {
		return fmt.Errorf("upload %s: the object store names no upload", key)
	}
	c.note(began.UploadId, true)
	defer c.note(began.UploadId, false)
	tags, err := c.putParts(ctx, key, began.UploadId, parts, open)
	if err == nil {
		err = c.complete(ctx, key, began.UploadId, tags)
	}
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortPatience)
	defer cancel()
	if aerr := c.abort(ctx, key, began.UploadId); aerr != nil {
		return errors.Join(err, fmt.Errorf("clear away: %w", aerr))
	}
	return err
}

func (c *Client) note(id string, underway bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if underway {
		c.underway[id] = true
	} else {
		delete(c.underway, id)
	}
}

func (c *Client) putParts(ctx context.Context, key, id string, parts []Part, open func(offset, size int64) (io.ReadCloser, error)) ([]string, error) {
	tags := make([]string, len(parts))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(partsAtOnce)
	var offset int64
	for i, p := range parts {
		from := offset
		offset += p.Size
		g.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			a, err := c.do(ctx, request{
				method: http.MethodPut, key: key, query: url.Values{"partNumber": {strconv.Itoa(i + 1)}, "uploadId": {id}},
				size: p.Size, sum: p.Sum, body: func() (io.ReadCloser, error) { return open(from, p.Size) },
			})
			if err != nil {
				return err
			}
			a.Body.Close()
			if tags[i] = a.Header.Get("ETag"); tags[i] == "" {
				return fmt.Errorf("upload %s: the object store gives a part no tag", key)
			}
			return nil
		})
	}
	return tags, g.Wait()
}

func (c *Client) complete(ctx context.Context, key, id string, tags []string) error {
	type part struct {
		PartNumber int
		ETag       string
	}
	doc := struct {
		XMLName xml.Name `xml:"CompleteMultipartUpload"`
		Part    []part
	}{}
	for i, tag := range tags {
		doc.Part = append(doc.Part, part{i + 1, tag})
	}
	text, err := xml.Marshal(doc)
	if err != nil {
		return err
	}
	return c.answer(ctx, request{
		method: http.MethodPost, key: key, query: url.Values{"uploadId": {id}}, size: int64(len(text)), sum: sumOf(text),
		body: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(string(text))), nil },
	}, nil)
}

// abort forgets an upload, which may be gone already.
func (c *Client) abort(ctx context.Context, key, id string) error {
	err := c.answer(ctx, request{method: http.MethodDelete, key: key, query: url.Values{"uploadId": {id}}}, nil)
	if e, ok := errors.AsType[*Error](err); ok && e.Status == http.StatusNotFound {
		return nil
	}
	return err
}

// AbortStale forgets uploads below prefix that were begun before a time and are not this client's: of processes that ended on the way.
func (c *Client) AbortStale(ctx context.Context, prefix string, before time.Time) (aborted int, err error) {
	for keyMarker, idMarker := "", ""; ; {
		var said struct {
			IsTruncated                       bool
			NextKeyMarker, NextUploadIdMarker string
			Upload                            []struct {
				Key, UploadId string
				Initiated     time.Time
			}
		}
		query := url.Values{"uploads": {""}, "prefix": {prefix}}
		if keyMarker != "" {
			query.Set("key-marker", keyMarker)
			query.Set("upload-id-marker", idMarker)
		}
		if err := c.answer(ctx, request{method: http.MethodGet, query: query}, &said); err != nil {
			return aborted, fmt.Errorf("list uploads: %w", err)
		}
		for _, u := range said.Upload {
			c.mu.Lock()
			ours := c.underway[u.UploadId]
			c.mu.Unlock()
			if ours || !u.Initiated.Before(before) || !strings.HasPrefix(u.Key, prefix) {
				continue
			}
			if err := c.abort(ctx, u.Key, u.UploadId); err != nil {
				return aborted, err
			}
			aborted++
		}
		if !said.IsTruncated || said.NextKeyMarker == "" || said.NextKeyMarker == keyMarker && said.NextUploadIdMarker == idMarker {
			return aborted, nil
		}
		keyMarker, idMarker = said.NextKeyMarker, said.NextUploadIdMarker
	}
}
