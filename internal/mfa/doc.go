// Package mfa finds the code of an MFA device without a person where there
// is a way: the profile's mfa_process, a TOTP seed that the vault keeps
// (`keyfob mfa add`), a YubiKey. Ways is a cred.Asker in front of the one
// that asks people, so that no source needs to know.
//
// The order is: mfa_process, which the profile names; the seed of the
// device; then a person and, beside the prompt, the YubiKey. One that fails
// is logged and the next one is tried. A YubiKey blinks only while a person is
// asked: where nobody is, nobody would touch it. Whoever wants it for
// requests in the background writes mfa_process = ykman oath accounts code
// --single NAME.
//
// A YubiKey's account is taken for the device when its name is the device's
// serial, or when its issuer is AWS and its name is that of the device, with
// or without @ and more after it, as in the codes that the console shows; and
// when it is the only one.
//
// AWS takes each code once. The step of the last code that was given is in
// the device's record before the code is used: the next one waits for the
// next step of 30 seconds.
package mfa
