// Command printargs prints its arguments, one a line in brackets and the
// variable AWS_REGION: what a program got of what a shell
// was given.
package main

import (
	"fmt"
	"os"
)

func main() {
	for _, a := range os.Args[1:] {
		fmt.Printf("[%s]\n", a)
	}
	fmt.Printf("AWS_REGION=[%s]\n", os.Getenv("AWS_REGION"))
}
