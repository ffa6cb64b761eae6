package client

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/aws/smithy-go"
)

// Plain says an error of the API or of the connection as a person would: without the layers of the SDK, and with what to do
// next where that is known.
func (c *Client) Plain(err error) error {
	var refusal smithy.APIError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nothing answers at %s; start the platform with: neargate dev", c.Config.Endpoint)
	case errors.As(err, &refusal):
		return fmt.Errorf("%s (%s)", refusal.ErrorMessage(), refusal.ErrorCode())
	}
	return err
}
