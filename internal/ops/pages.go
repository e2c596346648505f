package ops

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/signin"

	"keyfob/profiles"
)

// site is where a partition's console and its sign-in live.
type site struct {
	domain  string // "aws.amazon.com": what follows "console." and "signin."
	signin  string // host of the sign-in
	console string // host of the console
}

// global are the partitions whose sign-in has one host for all regions (IAM
// user guide, "Enable custom identity broker access to the AWS console"). In
// the others it is the region's, as the endpoint data has it.
var global = map[string]bool{"aws.amazon.com": true, "amazonaws.cn": true, "amazonaws-us-gov.com": true}

// siteOf is the console's site for a region, from the endpoint data of AWS's
// sign-in service, which names each partition's web domain.
func siteOf(ctx context.Context, region string, fips bool) (site, error) {
	host, err := signinHost(ctx, region, false)
	if err != nil {
		return site{}, err
	}
	domain, ok := strings.CutPrefix(host, region+".signin.")
	if !ok {
		return site{}, fmt.Errorf("cannot tell the console's address in region %s", region)
	}
	s := site{domain: domain, signin: host, console: "console." + domain}
	if global[domain] {
		s.signin = "signin." + domain
	}
	if fips && domain == "amazonaws-us-gov.com" { // the only partition that has one
		if s.signin, err = signinHost(ctx, region, true); err != nil {
			return site{}, err
		}
	}
	return s, nil
}

func signinHost(ctx context.Context, region string, fips bool) (string, error) {
	e, err := signin.NewDefaultEndpointResolverV2().ResolveEndpoint(ctx, signin.EndpointParameters{
		Region: aws.String(region), UseFIPS: aws.Bool(fips), UseDualStack: aws.Bool(false)})
	if err != nil {
		return "", fmt.Errorf("cannot tell the console's address in region %s: %w", region, err)
	}
	return e.URI.Host, nil
}

// homeRegions is a region of each partition, for credentials of which
// nothing but an ARN is known.
var homeRegions = map[string]string{
	"aws": "us-east-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1", "aws-eusc": "eusc-de-east-1",
	"aws-iso": "us-iso-east-1", "aws-iso-b": "us-isob-east-1", "aws-iso-e": "eu-isoe-west-1", "aws-iso-f": "us-isof-south-1",
}

var (
	regionName  = regexp.MustCompile(`^[a-z]{2,10}(-[a-z0-9]{1,20}){1,4}$`)
	servicePath = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*/?$`)
)

// consoleSite is the site for a chain's credentials and a page's region ("" for
// none). Credentials of one partition are none in another.
func consoleSite(ctx context.Context, chain []profiles.Link, region string) (site, error) {
	last := chain[len(chain)-1]
	if region != "" && !regionName.MatchString(region) {
		return site{}, &inputError{fmt.Sprintf("cannot open the console in region %q: that is no name of a region", region), "--region eu-west-1, for one"}
	}
	own := homeRegions[partitionOf(last.RoleARN)]
	switch {
	case own != "":
	case regionName.MatchString(last.Client.Region):
		own = last.Client.Region
	case region != "":
		own = region
	default:
		own = homeRegions["aws"]
	}
	s, err := siteOf(ctx, own, last.Client.UseFIPS)
	if err != nil || region == "" || region == own {
		return s, err
	}
	there, err := siteOf(ctx, region, last.Client.UseFIPS)
	if err != nil {
		return site{}, err
	}
	if there.domain != s.domain {
		return site{}, &inputError{fmt.Sprintf("cannot open the console in region %s: it is in another partition (%s) than the credentials (%s)", region, there.domain, s.domain),
			"--region with a region of the profile's partition"}
	}
	return there, nil
}

// partitionOf is the partition of an ARN, "" for none.
func partitionOf(arn string) string {
	if p := strings.SplitN(arn, ":", 6); len(p) == 6 && p[0] == "arn" {
		return p[1]
	}
	return ""
}

// page is the address of a service's page.
func (s site) page(service, region string) (string, error) {
	path, fragment := "", ""
	switch {
	case service == "" && region != "":
		path = "console/home"
	case service == "":
	case !servicePath.MatchString(service) || len(service) > 200:
		return "", &inputError{fmt.Sprintf("cannot open the console's page %q: that is no name of a service", shorten(service)), "--service s3, for one"}
	default:
		name := strings.ToLower(service)
		var known bool
		if path, known = servicePages[name]; !known {
			// A path is taken as it is written.
			if path = service; !strings.Contains(service, "/") {
				path = name + "/home"
			}
		}
		path, fragment, _ = strings.Cut(path, "#")
	}
	u := url.URL{Scheme: "https", Host: s.console, Path: "/" + path, Fragment: fragment}
	if region != "" {
		u.RawQuery = url.Values{"region": {region}}.Encode()
	}
	return u.String(), nil
}

func shorten(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}

// servicePages are the services whose page has another path than
// /NAME/home: names of the command line, of IAM's action prefixes and of
// daily speech. What is not here is used as it is; the console sends on from
// the plain path of a service to the newest version of its page.
var servicePages = map[string]string{
	"airflow":              "mwaa/home",
	"api-gateway":          "apigateway/home",
	"autoscaling":          "ec2/home#AutoScalingGroups:",
	"budgets":              "billing/home#/budgets",
	"ce":                   "cost-management/home#/cost-explorer",
	"cfn":                  "cloudformation/home",
	"codeartifact":         "codesuite/codeartifact/repositories",
	"codebuild":            "codesuite/codebuild/projects",
	"codecommit":           "codesuite/codecommit/repositories",
	"codedeploy":           "codesuite/codedeploy/applications",
	"codepipeline":         "codesuite/codepipeline/pipelines",
	"cognito-identity":     "cognito/home",
	"cognito-idp":          "cognito/home",
	"cost-explorer":        "cost-management/home#/cost-explorer",
	"cw":                   "cloudwatch/home",
	"ddb":                  "dynamodb/home",
	"ds":                   "directoryservicev2/home",
	"eb":                   "elasticbeanstalk/home",
	"ebs":                  "ec2/home#Volumes:",
	"ecr":                  "ecr/repositories",
	"elasticfilesystem":    "efs/home",
	"elasticloadbalancing": "ec2/home#LoadBalancers:",
	"elasticmapreduce":     "emr/home",
	"elb":                  "ec2/home#LoadBalancers:",
	"elbv2":                "ec2/home#LoadBalancers:",
	"es":                   "aos/home",
	"eventbridge":          "events/home",
	"identitycenter":       "singlesignon/home",
	"inspector2":           "inspector/v2/home",
	"kafka":                "msk/home",
	"logs":                 "cloudwatch/home#logsV2:log-groups",
	"macie2":               "macie/home",
	"mq":                   "amazon-mq/home",
	"opensearch":           "aos/home",
	"parameterstore":       "systems-manager/parameters",
	"r53":                  "route53/home",
	"resourcegroups":       "resource-groups/home",
	"secrets":              "secretsmanager/home",
	"service-quotas":       "servicequotas/home",
	"sfn":                  "states/home",
	"ssm":                  "systems-manager/home",
	"sso":                  "singlesignon/home",
	"stepfunctions":        "states/home",
	"sts":                  "iam/home",
	"vpc":                  "vpcconsole/home",
	"waf":                  "wafv2/homev2",
	"waf-regional":         "wafv2/homev2",
	"wafv2":                "wafv2/homev2",
}
