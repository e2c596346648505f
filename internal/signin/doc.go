// Package signin is the program keyfob-signin, which stands in the person's
// own session: it shows a desktop notification, asks one question in a dialog
// or at the terminal, and drives a browser through a SAML sign-in. What is
// shown comes in as one JSON object on standard input and the answer goes out
// as one, with a line feed, on standard output, so that no answer is ever in
// an argument list, an environment or a file. Standard error has at most one
// line, "keyfob-signin: cannot COMMAND: WHY", without a secret.
//
// Who starts it ends it by SIGTERM when the answer is no longer wanted, and
// kills it three seconds later. It then gives no answer, and leaves no
// program that it started.
//
// Exit codes: 0 there is an answer (a refusal is one); 1 it failed; 2 the
// command or the request is none; 3 nobody can be reached this way: no
// desktop, no terminal, no browser.
//
// keyfob-signin notify reads {"title","body"} and prints nothing.
//
// keyfob-signin ask reads
//
//	{"kind","profile","serial"?,"text"?,"error"?,"choices"?,"ways"?,"timeout_seconds"?}
//
// and prints {"value"} or {"refused":true}. With choices the value is what
// the person typed, which may be a choice, its number from 1, or its first
// letters: who asked decides.
//
// keyfob-signin saml is run by keyfob for a prompt of kind "saml". It reads
//
//	{"profile","url","saml_endpoint","browser_dir","headless"?,"browser_args"?,"timeout_seconds"}
//
// Here url is the identity provider's page, where the browser begins;
// saml_endpoint is the address to which that page posts its form,
// https://signin.aws.amazon.com/saml in the partition aws; browser_dir is the
// directory of the browser's own profile, made with mode 0700 where it does
// not exist, so that its cookies make the next sign-in short; headless and
// browser_args are the settings browser.headless and browser.args;
// timeout_seconds bounds it all.
//
// and prints {"assertion"}, the form's field SAMLResponse as it was posted
// (standard base64, without line feeds), or {"refused":true} when the person
// closed the browser. With the time up it ends with 1, without a browser that
// it could drive, or a screen for its window, with 3.
//
// The request with the form is recognised by scheme, host, port and path
// (also with /acs/… behind it), taken before it leaves the machine, and not
// sent on. The sign-in addresses of AWS's partitions and their regions are
// watched whatever saml_endpoint is: an assertion that was meant for another
// one must not leave either.
//
// Where the browser has been before, it is first tried without a window: for
// as long as the provider knows its cookies the person sees nothing. Cookies
// that would end with the browser are kept for a day. Two sign-ins with one
// browser_dir come one after the other. The browser listens on no port: the
// two talk over pipes, and it ends when they are closed.
package signin
