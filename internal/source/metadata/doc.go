// Package metadata is the source for the credentials that a real instance
// (credential_source = Ec2InstanceMetadata) or container (EcsContainer) gives
// its programs. It is the client of such services; keyfob's own endpoints,
// which speak the same protocols, are package imds, and are never asked.
//
// A fetch from an instance is a session token (IMDSv2), the role's name and
// its credentials, each one HTTP request of at most a second
// (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html).
// Requests without a token are made only where ec2_metadata_v1_disabled =
// false says that they may be. A fetch from a container is one request
// (https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html).
// No proxy is used and no redirect followed.
package metadata
