package retention

// SetStep has a function told of each step that is done.
func SetStep(fn func(step string)) { testingOnlyStep = fn }
