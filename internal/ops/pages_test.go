package ops

import (
	"errors"
	"testing"

	"keyfob/profiles"
)

func TestSitesOfPartitions(t *testing.T) {
	for _, x := range []struct {
		region          string
		fips            bool
		signin, console string
	}{
		{"us-east-1", false, "signin.aws.amazon.com", "console.aws.amazon.com"},
		{"eu-central-2", false, "signin.aws.amazon.com", "console.aws.amazon.com"},
		{"us-east-1", true, "signin.aws.amazon.com", "console.aws.amazon.com"},
		{"cn-north-1", false, "signin.amazonaws.cn", "console.amazonaws.cn"},
		{"cn-northwest-1", false, "signin.amazonaws.cn", "console.amazonaws.cn"},
		{"us-gov-west-1", false, "signin.amazonaws-us-gov.com", "console.amazonaws-us-gov.com"},
		{"us-gov-east-1", false, "signin.amazonaws-us-gov.com", "console.amazonaws-us-gov.com"},
		{"us-gov-west-1", true, "signin-fips.amazonaws-us-gov.com", "console.amazonaws-us-gov.com"},
		{"us-gov-east-1", true, "us-gov-east-1.signin-fips.amazonaws-us-gov.com", "console.amazonaws-us-gov.com"},
		{"us-iso-east-1", false, "us-iso-east-1.signin.c2shome.ic.gov", "console.c2shome.ic.gov"},
		{"us-isob-east-1", false, "us-isob-east-1.signin.sc2shome.sgov.gov", "console.sc2shome.sgov.gov"},
		{"eu-isoe-west-1", false, "eu-isoe-west-1.signin.csphome.adc-e.uk", "console.csphome.adc-e.uk"},
		{"us-isof-south-1", false, "us-isof-south-1.signin.csphome.hci.ic.gov", "console.csphome.hci.ic.gov"},
		{"eusc-de-east-1", false, "eusc-de-east-1.signin.amazonaws-eusc.eu", "console.amazonaws-eusc.eu"},
	} {
		s, err := siteOf(t.Context(), x.region, x.fips)
		if err != nil || s.signin != x.signin || s.console != x.console {
			t.Errorf("%s (FIPS %v): %+v %v", x.region, x.fips, s, err)
		}
		u, err := Deps{}.federation(s)
		if err != nil || u.String() != "https://"+x.signin+"/federation" {
			t.Errorf("%s: %v %v", x.region, u, err)
		}
	}
}

// TestSiteOfAChain: the role's ARN, the region of its client and the page's
// region must name one partition.
func TestSiteOfAChain(t *testing.T) {
	role := func(partition string) string { return "arn:" + partition + ":iam::111122223333:role/x" }
	for _, x := range []struct {
		arn, client, page, signin string
	}{
		{role("aws"), "eu-west-1", "", "signin.aws.amazon.com"},
		{role("aws-cn"), "cn-north-1", "cn-northwest-1", "signin.amazonaws.cn"},
		{role("aws-us-gov"), "", "", "signin.amazonaws-us-gov.com"},
		{role("aws-iso-b"), "", "us-isob-west-1", "us-isob-west-1.signin.sc2shome.sgov.gov"},
		{role("aws-cn"), "cn-north-1", "eu-west-1", ""},
		{"", "us-gov-west-1", "", "signin.amazonaws-us-gov.com"},
		{"", "", "cn-north-1", "signin.amazonaws.cn"}, // a process's
		{"", "", "", "signin.aws.amazon.com"},
	} {
		chain := []profiles.Link{{Kind: profiles.KindProcess}, {RoleARN: x.arn, Client: profiles.Client{Region: x.client}}}
		s, err := consoleSite(t.Context(), chain, x.page)
		if x.signin == "" {
			if !errors.Is(err, ErrInput) {
				t.Errorf("%+v: %+v %v", x, s, err)
			}
		} else if err != nil || s.signin != x.signin {
			t.Errorf("%+v: %+v %v", x, s, err)
		}
	}
}

func TestPages(t *testing.T) {
	aws := site{console: "console.aws.amazon.com"}
	gov := site{console: "console.amazonaws-us-gov.com"}
	for _, x := range []struct {
		s                     site
		service, region, want string
	}{
		{aws, "", "", "https://console.aws.amazon.com/"},
		{aws, "", "eu-west-1", "https://console.aws.amazon.com/console/home?region=eu-west-1"},
		{aws, "s3", "", "https://console.aws.amazon.com/s3/home"},
		{aws, "EC2", "eu-west-1", "https://console.aws.amazon.com/ec2/home?region=eu-west-1"},
		{gov, "ssm", "us-gov-west-1", "https://console.amazonaws-us-gov.com/systems-manager/home?region=us-gov-west-1"},
		{aws, "logs", "eu-west-1", "https://console.aws.amazon.com/cloudwatch/home?region=eu-west-1#logsV2:log-groups"},
		{aws, "vpc", "eu-west-1", "https://console.aws.amazon.com/vpcconsole/home?region=eu-west-1"},
		{aws, "newservice", "eu-west-1", "https://console.aws.amazon.com/newservice/home?region=eu-west-1"},
		{aws, "s3/buckets/My.bucket", "eu-west-1", "https://console.aws.amazon.com/s3/buckets/My.bucket?region=eu-west-1"},
	} {
		if got, err := x.s.page(x.service, x.region); err != nil || got != x.want {
			t.Errorf("page(%q, %q) = %s %v, want %s", x.service, x.region, got, err, x.want)
		}
	}
	for _, bad := range []string{"/s3", "a//b", "..", "s3/../iam", "s3?x=1", "s3#x", "s3 x", "https://x", "x\n", "s3:y"} {
		if got, err := aws.page(bad, "eu-west-1"); !errors.Is(err, ErrInput) {
			t.Errorf("page(%q) = %s %v", bad, got, err)
		}
	}
	for name, path := range servicePages {
		if got, err := aws.page(name, ""); err != nil || got != "https://console.aws.amazon.com/"+path {
			t.Errorf("%s: %s %v", name, got, err)
		}
		if path == name+"/home" {
			t.Errorf("%s stands in the table for nothing", name)
		}
	}
}
