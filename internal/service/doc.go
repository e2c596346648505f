// Package service installs, starts and removes keyfobd as a service of the
// operating system.
package service
