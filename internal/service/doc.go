// Package service installs, starts and removes keyfobd as a service of the
// operating system, and speaks with the manager that started it: readiness,
// the watchdog, and listeners that it hands over.
//
// A Manager makes a Plan first: the files and commands, to be printed. Only
// then it does it, and a step that fails undoes those before it. Files are
// written here, atomically and from templates of our own, because the
// templates of github.com/kardianos/service can't say readiness, watchdog or
// sandbox, and its Install leaves an empty unit behind when it fails. That
// library tells which service manager there is, and is the way to the
// service control manager of Windows.
package service
