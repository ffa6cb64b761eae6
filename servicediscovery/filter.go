package servicediscovery

import (
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
)

// filter compiles one filter of a listing into a test of a value. allowed are the conditions that the filter's name supports.
func filter(name string, condition types.FilterCondition, values []string, allowed ...types.FilterCondition) (func(string) bool, error) {
	if condition == "" {
		condition = types.FilterConditionEq
	}
	if !slices.Contains(allowed, condition) {
		return nil, invalid("Condition '%s' is not supported for filter '%s'", condition, name)
	}
	if (condition == types.FilterConditionEq || condition == types.FilterConditionBeginsWith) && len(values) != 1 {
		return nil, invalid("Filter '%s' with condition '%s' takes exactly one value", name, condition)
	}
	switch condition {
	case types.FilterConditionBeginsWith:
		return func(v string) bool { return strings.HasPrefix(v, values[0]) }, nil
	case types.FilterConditionBetween:
		low, high, err := dates(values)
		if err != nil {
			return nil, err
		}
		return func(v string) bool {
			at, err := strconv.ParseFloat(v, 64)
			return err == nil && at >= low && at <= high
		}, nil
	}
	return func(v string) bool { return slices.Contains(values, v) }, nil
}

// dates reads a range of times in seconds since 1970.
func dates(values []string) (low, high float64, err error) {
	if len(values) != 2 {
		return 0, 0, invalid("A filter with condition 'BETWEEN' takes a start date and an end date")
	}
	low, errLow := strconv.ParseFloat(values[0], 64)
	high, errHigh := strconv.ParseFloat(values[1], 64)
	if errLow != nil || errHigh != nil {
		return 0, 0, invalid("'%s' and '%s' are not a range of dates in Unix format", values[0], values[1])
	}
	return low, high, nil
}

// filtered is what all tests keep of items.
func filtered[T any](items iter.Seq[T], keep []func(T) bool) iter.Seq[T] {
	return func(yield func(T) bool) {
	next:
		for item := range items {
			for _, k := range keep {
				if !k(item) {
					continue next
				}
			}
			if !yield(item) {
				return
			}
		}
	}
}
