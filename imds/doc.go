// Package imds serves credentials over HTTP in the two forms that every AWS
// SDK speaks: the EC2 instance metadata service and the container credential
// endpoint. A Server is one listener. What it answers is a table of routes;
// one dispatcher enforces each route's methods, access and body limit, after
// one guard has refused whatever a browser, a proxy or a rebound name sends.
// Credentials come from the broker alone, which also judges the caller.
package imds
