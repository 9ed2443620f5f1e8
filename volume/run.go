package volume

// run is the device's own part of a request.
type run struct{}
