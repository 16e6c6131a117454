package main

import "github.com/centrifugal/centrifuge-go"

// A filter is a node as the protocol has it; this SDK only builds nodes that are well formed.
type filter struct {
	Op    string   `json:"op"`
	Key   string   `json:"key"`
	Cmp   string   `json:"cmp"`
	Val   string   `json:"val"`
	Vals  []string `json:"vals"`
	Nodes []filter `json:"nodes"`
}

func (f *filter) build() (*centrifuge.FilterNode, error) {
	ofOne := map[string]func(string, string) *centrifuge.FilterNode{
		"eq": centrifuge.FilterEq, "neq": centrifuge.FilterNeq,
		"sw": centrifuge.FilterStartsWith, "ew": centrifuge.FilterEndsWith, "ct": centrifuge.FilterContains,
		"gt": centrifuge.FilterGt, "gte": centrifuge.FilterGte,
		"lt": centrifuge.FilterLt, "lte": centrifuge.FilterLte,
	}
	ofSeveral := map[string]func(string, ...string) *centrifuge.FilterNode{
		"in": centrifuge.FilterIn, "nin": centrifuge.FilterNin,
	}
	ofNone := map[string]func(string) *centrifuge.FilterNode{
		"ex": centrifuge.FilterExists, "nex": centrifuge.FilterNotExists,
	}
	if f.Op != "" {
		return f.combine()
	}
	if build, known := ofOne[f.Cmp]; known {
		return build(f.Key, f.Val), nil
	}
	if build, known := ofSeveral[f.Cmp]; known {
		return build(f.Key, f.Vals...), nil
	}
	if build, known := ofNone[f.Cmp]; known {
		return build(f.Key), nil
	}
	return nil, unsupported("a filter with the comparison " + f.Cmp)
}

func (f *filter) combine() (*centrifuge.FilterNode, error) {
	var children []*centrifuge.FilterNode
	for _, one := range f.Nodes {
		child, err := one.build()
		if err != nil {
			return nil, err
		}
		children = append(children, child)
	}
	switch {
	case f.Op == "and":
		return centrifuge.FilterAnd(children...), nil
	case f.Op == "or":
		return centrifuge.FilterOr(children...), nil
	case f.Op == "not" && len(children) == 1:
		return centrifuge.FilterNot(children[0]), nil
	}
	return nil, unsupported("a filter with the operator " + f.Op)
}
