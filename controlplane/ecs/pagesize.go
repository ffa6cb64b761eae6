package ecs

import "github.com/seed-2f228079/neargate/api"

// pageSize is how many items a listing is asked for: fallback when it is not said, and no other number than 1 to most. Services whose models have such bounds are
// sent no request that is out of them; ECS's model has none.
func pageSize(asked *int32, fallback, most int) (int, error) {
	size, ok := api.PageWithin(asked, fallback, most)
	if !ok {
		return 0, invalid("maxResults must be between 1 and %d.", most)
	}
	return size, nil
}
