// What cannot run here is read: the Dockerfile, the Kubernetes manifests, the
// alerts. What can be asked is asked: nginx and systemd about their files.
#include <yaml-cpp/yaml.h>

#include <array>
#include <cctype>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/api.h"
#include "coordinator/server/config.h"

namespace selvage {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

const fs::path kSource = SELVAGE_SOURCE_DIR;

std::string ReadText(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

struct Ran {
  int exit_code = -1;
  std::string output;
};
Ran Shell(const std::string& command) {
  Ran ran;
  FILE* const pipe = popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return ran;
  std::array<char, 4096> buffer{};
  for (size_t n = 0; (n = fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) {
    ran.output.append(buffer.data(), n);
  }
  ran.exit_code = pclose(pipe);
  return ran;
}
bool Installed(const std::string& program) {
  return Shell("command -v " + program).exit_code == 0;
}

// Every match of `pattern`.
std::set<std::string> Matches(const std::string& text,
                              const std::string& pattern) {
  const std::regex regex(pattern);
  std::set<std::string> found;
  for (std::sregex_iterator it(text.begin(), text.end(), regex), end; it != end;
       ++it) {
    found.insert(it->str());
  }
  return found;
}

// docs/operations.md from this heading to the next of its level.
std::string Section(const std::string& heading) {
  const std::string text =
      "\n" + ReadText(fs::path(SELVAGE_SOURCE_DIR) / "docs/operations.md");
  const size_t begin = text.find("\n" + heading + "\n");
  EXPECT_NE(begin, std::string::npos) << heading;
  if (begin == std::string::npos) return "";
  const std::string next = "\n" + heading.substr(0, heading.find(' ') + 1);
  return text.substr(begin, text.find(next, begin + 1) - begin);
}

std::set<std::string> DocumentedMetrics() {
  return Matches(Section("## Metrics"), "selvage_[a-z_]+");
}
// The name of the histogram that a series belongs to.
std::string WithoutSuffix(const std::string& metric) {
  return std::regex_replace(metric, std::regex("_(bucket|sum|count)$"), "");
}

// "HOST/NAME:TAG" or "...@sha256:...", and not a tag that moves.
bool IsPinned(const std::string& image) {
  if (image.find("@sha256:") != std::string::npos) return true;
  const size_t colon = image.rfind(':');
  return colon != std::string::npos &&
         image.find('/', colon) == std::string::npos &&
         std::regex_search(image.substr(colon), std::regex("[0-9]")) &&
         image.substr(colon) != ":latest";
}

// ---------------------------------------------------------------- Dockerfile

TEST(DockerfileTest, TwoStages_PinnedBase_NobodyButANumber_NothingFetched) {
  std::vector<std::string> from;
  std::string base;
  std::string user;
  bool health = false;
  for (const std::string& line :
       Lines(ReadText(kSource / "deploy/Dockerfile"))) {
    std::istringstream in(line);
    std::string word;
    std::string value;
    in >> word >> value;
    EXPECT_NE(word, "ADD") << "COPY takes files; ADD fetches and unpacks";
    if (word == "ARG" && value.rfind("BASE=", 0) == 0) base = value.substr(5);
    if (word == "FROM") {
      from.push_back(value);
      user.clear();
    }
    if (word == "USER") user = value;
    if (word == "HEALTHCHECK") health = true;
    EXPECT_EQ(line.find("curl http"), std::string::npos) << line;
    EXPECT_EQ(line.find("wget"), std::string::npos) << line;
    EXPECT_EQ(line.find("apt-key"), std::string::npos) << line;
  }
  ASSERT_EQ(from.size(), 2u);
  for (const std::string& image : from) {
    EXPECT_TRUE(image == "${BASE}" || IsPinned(image)) << image;
  }
  EXPECT_TRUE(IsPinned(base)) << base;
  EXPECT_TRUE(std::regex_match(user, std::regex("[1-9][0-9]*:[1-9][0-9]*")))
      << "the last stage's user is \"" << user << "\"";
  EXPECT_TRUE(health);
}

TEST(DockerfileTest, Builder_HasWhatTheBuildNeeds) {
  const std::string script = ReadText(kSource / "scripts/install-deps");
  const size_t begin = script.find("build=\"") + 7;
  std::istringstream wanted(
      script.substr(begin, script.find('"', begin) - begin));
  const std::string file = ReadText(kSource / "deploy/Dockerfile");
  std::istringstream in(file);
  std::set<std::string> words;
  for (std::string word; in >> word;) words.insert(word);
  size_t count = 0;
  for (std::string package; wanted >> package; ++count) {
    if (package == "ccache") continue;
    EXPECT_THAT(words, Contains(package));
  }
  EXPECT_GE(count, 10u);
}

// ---------------------------------------------------------------- Kubernetes

struct Manifest {
  std::string file;
  YAML::Node node;
};

std::vector<Manifest> Manifests() {
  std::vector<Manifest> all;
  for (const auto& entry :
       fs::directory_iterator(kSource / "deploy/kubernetes")) {
    if (entry.path().extension() != ".yaml") continue;
    for (const YAML::Node& node :
         YAML::LoadAllFromFile(entry.path().string())) {
      all.push_back({entry.path().filename().string(), node});
    }
  }
  return all;
}

std::string Text(const YAML::Node& node) {
  return node && node.IsScalar() ? node.as<std::string>() : "";
}

void CheckPod(const YAML::Node& pod, bool serves) {
  EXPECT_EQ(Text(pod["automountServiceAccountToken"]), "false");
  const YAML::Node security = pod["securityContext"];
  ASSERT_TRUE(security);
  EXPECT_EQ(Text(security["runAsNonRoot"]), "true");
  EXPECT_NE(Text(security["runAsUser"]), "");
  EXPECT_NE(Text(security["runAsUser"]), "0");
  EXPECT_EQ(Text(security["seccompProfile"]["type"]), "RuntimeDefault");
  std::set<std::string> volumes;
  for (const YAML::Node& volume : pod["volumes"]) {
    volumes.insert(Text(volume["name"]));
    EXPECT_FALSE(volume["hostPath"]) << "a pod owns nothing of its machine";
    if (const YAML::Node secret = volume["secret"]) {
      EXPECT_EQ(Text(secret["defaultMode"]), "0400");
    }
  }
  ASSERT_GT(pod["containers"].size(), 0u);
  for (const YAML::Node& container : pod["containers"]) {
    EXPECT_TRUE(IsPinned(Text(container["image"]))) << Text(container["image"]);
    const YAML::Node own = container["securityContext"];
    ASSERT_TRUE(own);
    EXPECT_EQ(Text(own["allowPrivilegeEscalation"]), "false");
    EXPECT_EQ(Text(own["readOnlyRootFilesystem"]), "true");
    EXPECT_NE(Text(own["privileged"]), "true");
    EXPECT_EQ(Text(own["capabilities"]["drop"][0]), "ALL");
    EXPECT_NE(Text(container["resources"]["requests"]["cpu"]), "");
    EXPECT_NE(Text(container["resources"]["requests"]["memory"]), "");
    EXPECT_NE(Text(container["resources"]["limits"]["memory"]), "");
    for (const YAML::Node& mount : container["volumeMounts"]) {
      EXPECT_THAT(volumes, Contains(Text(mount["name"])));
    }
    if (!serves) continue;
    std::set<std::string> ports;
    for (const YAML::Node& port : container["ports"]) {
      ports.insert(Text(port["name"]));
    }
    for (const char* probe :
         {"startupProbe", "livenessProbe", "readinessProbe"}) {
      const YAML::Node get = container[probe]["httpGet"];
      ASSERT_TRUE(get) << probe;
      EXPECT_EQ(Text(get["path"]), std::string(probe) == "readinessProbe"
                                       ? "/readyz"
                                       : "/healthz");
      EXPECT_THAT(ports, Contains(Text(get["port"]))) << probe;
    }
  }
}

TEST(KubernetesTest, EveryManifest_HasKindNameAndApi) {
  std::multiset<std::string> kinds;
  for (const Manifest& manifest : Manifests()) {
    SCOPED_TRACE(manifest.file);
    ASSERT_TRUE(manifest.node.IsMap());
    EXPECT_NE(Text(manifest.node["apiVersion"]), "");
    EXPECT_TRUE(std::regex_match(Text(manifest.node["metadata"]["name"]),
                                 std::regex("[a-z0-9]([a-z0-9-]*[a-z0-9])?")));
    kinds.insert(Text(manifest.node["kind"]));
  }
  for (const char* kind : {"ConfigMap", "Deployment", "Job", "NetworkPolicy",
                           "PodDisruptionBudget"}) {
    EXPECT_EQ(kinds.count(kind), 1u) << kind;
  }
  EXPECT_EQ(kinds.count("Service"), 2u);
  EXPECT_EQ(kinds.count("Secret"), 0u) << "secrets are not files of ours";
}

TEST(KubernetesTest, Pods_AreHardened_AndProbed) {
  for (const Manifest& manifest : Manifests()) {
    const std::string kind = Text(manifest.node["kind"]);
    if (kind != "Deployment" && kind != "Job") continue;
    SCOPED_TRACE(manifest.file);
    CheckPod(manifest.node["spec"]["template"]["spec"], kind == "Deployment");
  }
}

TEST(KubernetesTest, Selectors_FindThePods_AndOneMayBeAway) {
  const std::string label = "app.kubernetes.io/name";
  std::string name;
  int replicas = 0;
  for (const Manifest& manifest : Manifests()) {
    if (Text(manifest.node["kind"]) != "Deployment") continue;
    const YAML::Node spec = manifest.node["spec"];
    name = Text(spec["template"]["metadata"]["labels"][label]);
    replicas = spec["replicas"].as<int>();
    EXPECT_EQ(Text(spec["selector"]["matchLabels"][label]), name);
    EXPECT_EQ(Text(spec["strategy"]["rollingUpdate"]["maxUnavailable"]), "0");
  }
  EXPECT_GE(replicas, 2);
  for (const Manifest& manifest : Manifests()) {
    SCOPED_TRACE(manifest.file);
    const std::string kind = Text(manifest.node["kind"]);
    const YAML::Node spec = manifest.node["spec"];
    if (kind == "Service") {
      EXPECT_EQ(Text(spec["selector"][label]), name);
    } else if (kind == "PodDisruptionBudget") {
      EXPECT_EQ(Text(spec["selector"]["matchLabels"][label]), name);
      EXPECT_EQ(Text(spec["maxUnavailable"]), "1");
    } else if (kind == "NetworkPolicy") {
      EXPECT_EQ(Text(spec["podSelector"]["matchLabels"][label]), name);
      EXPECT_EQ(spec["policyTypes"].size(), 2u);
    }
  }
}

// Seconds of "10s", "1m".
int Seconds(const std::string& text) {
  const int number = std::stoi(text);
  return text.back() == 'm' ? number * 60 : number;
}

TEST(KubernetesTest, GracePeriod_CoversTheDrain) {
  int grace = 0;
  int drain = 0;
  for (const Manifest& manifest : Manifests()) {
    if (Text(manifest.node["kind"]) == "Deployment") {
      grace =
          manifest
              .node["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
              .as<int>();
    } else if (Text(manifest.node["kind"]) == "ConfigMap") {
      const YAML::Node settings =
          YAML::Load(Text(manifest.node["data"]["selvage.yaml"]));
      drain = Seconds(Text(settings["drain"]["delay"])) +
              Seconds(Text(settings["drain"]["timeout"]));
      EXPECT_EQ(Text(settings["replicas"]["enabled"]), "true");
      EXPECT_FALSE(settings["insecure"]);
      EXPECT_THAT(Text(settings["store"]["postgres"]),
                  HasSubstr("sslmode=verify-full"));
    }
  }
  EXPECT_GT(drain, 0);
  EXPECT_GE(grace, drain + 15);
}

TEST(KubernetesTest, Settings_AreGood_AndTheirPortsAreThePods) {
  std::set<std::string> settings;
  std::set<std::string> container;
  for (const Manifest& manifest : Manifests()) {
    if (Text(manifest.node["kind"]) == "ConfigMap") {
      coordinator::ConfigSources sources;
      sources.file = Text(manifest.node["data"]["selvage.yaml"]);
      sources.file_name = "selvage.yaml";
      sources.variable = [](const std::string&) { return std::nullopt; };
      const coordinator::LoadedConfig loaded = coordinator::LoadConfig(sources);
      EXPECT_THAT(loaded.mistakes, IsEmpty());
      const auto add = [&](const std::string& name,
                           const std::string& address) {
        // Probes and Prometheus come from other machines.
        EXPECT_EQ(address.rfind("0.0.0.0:", 0), 0u) << name;
        settings.insert(name + address.substr(address.rfind(':')));
      };
      add("device", loaded.config.device_address);
      add("admin", loaded.config.admin_address);
      add("metrics", loaded.config.metrics_address);
    } else if (Text(manifest.node["kind"]) == "Deployment") {
      const YAML::Node pod = manifest.node["spec"]["template"];
      for (const YAML::Node& port : pod["spec"]["containers"][0]["ports"]) {
        container.insert(Text(port["name"]) + ":" +
                         Text(port["containerPort"]));
      }
      EXPECT_THAT(
          container,
          Contains("metrics:" +
                   Text(pod["metadata"]["annotations"]["prometheus.io/port"])));
    }
  }
  EXPECT_EQ(settings.size(), 3u);
  EXPECT_EQ(settings, container);
}

// -------------------------------------------------------------------- alerts

TEST(AlertsTest, Rejections_AreExplainedByReasonsThatExist) {
  std::set<std::string> reasons;
  for (int i = 1; i <= static_cast<int>(coordinator::RejectReason::kWithdrawn);
       ++i) {
    reasons.insert(std::string(coordinator::RejectReasonName(
        static_cast<coordinator::RejectReason>(i))));
  }
  const std::set<std::string> named =
      Matches(Section("### SelvageUpdatesRejected"), "[A-Z][A-Z_]{3,}");
  EXPECT_GE(named.size(), 3u);
  for (const std::string& reason : named) {
    EXPECT_THAT(reasons, Contains(reason));
  }
}

TEST(AlertsTest, EachHasARunbookThatExists_AndNamesOurMetricsAlone) {
  std::set<std::string> anchors;
  for (const std::string& line :
       Lines(ReadText(kSource / "docs/operations.md"))) {
    if (line.rfind("#", 0) != 0) continue;
    std::string anchor;
    for (const char c : line.substr(line.find_first_not_of("# "))) {
      if (c == ' ') anchor += '-';
      if (std::isalnum(static_cast<unsigned char>(c)) || c == '-') {
        anchor +=
            static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      }
    }
    anchors.insert(anchor);
  }
  const YAML::Node rules =
      YAML::LoadFile((kSource / "deploy/prometheus/alerts.yaml").string());
  const std::set<std::string> known = DocumentedMetrics();
  std::set<std::string> names;
  for (const YAML::Node& group : rules["groups"]) {
    for (const YAML::Node& rule : group["rules"]) {
      const std::string name = Text(rule["alert"]);
      SCOPED_TRACE(name);
      EXPECT_TRUE(names.insert(name).second) << "twice";
      EXPECT_NE(Text(rule["for"]), "");
      EXPECT_TRUE(Text(rule["labels"]["severity"]) == "page" ||
                  Text(rule["labels"]["severity"]) == "ticket");
      EXPECT_NE(Text(rule["annotations"]["summary"]), "");
      const std::string runbook = Text(rule["annotations"]["runbook"]);
      const std::string page = "docs/operations.md#";
      ASSERT_EQ(runbook.rfind(page, 0), 0u) << runbook;
      EXPECT_THAT(anchors, Contains(runbook.substr(page.size())));
      const std::string expression = Text(rule["expr"]);
      const std::set<std::string> metrics =
          Matches(expression, "selvage_[a-z_]+");
      EXPECT_TRUE(!metrics.empty() || expression.rfind("up{", 0) == 0);
      for (const std::string& metric : metrics) {
        EXPECT_THAT(known, Contains(WithoutSuffix(metric)));
      }
      for (const char* label : {"device_id", "round_id", "instance_ip"}) {
        EXPECT_THAT(expression, Not(HasSubstr(label)));
      }
    }
  }
  EXPECT_GE(names.size(), 7u);
}

TEST(DashboardTest, EveryPanel_AsksForMetricsThatExist) {
  const YAML::Node dashboard =
      YAML::LoadFile((kSource / "deploy/grafana/selvage.json").string());
  std::set<std::string> titles;
  std::set<std::string> asked;
  for (const YAML::Node& panel : dashboard["panels"]) {
    const std::string title = Text(panel["title"]);
    SCOPED_TRACE(title);
    EXPECT_TRUE(titles.insert(title).second) << "twice";
    ASSERT_GT(panel["targets"].size(), 0u);
    for (const YAML::Node& target : panel["targets"]) {
      const std::set<std::string> metrics =
          Matches(Text(target["expr"]), "selvage_[a-z_]+");
      EXPECT_FALSE(metrics.empty());
      for (const std::string& metric : metrics) {
        EXPECT_THAT(DocumentedMetrics(), Contains(WithoutSuffix(metric)));
        asked.insert(WithoutSuffix(metric));
      }
    }
  }
  EXPECT_GE(asked.size(), 15u);
}

// ------------------------------------------------------------ nginx, systemd

TEST(NginxTest, Configuration_IsAcceptedByNginx) {
  const std::string nginx =
      fs::exists("/usr/sbin/nginx") ? "/usr/sbin/nginx" : "nginx";
  if (!Installed(nginx) ||
      !fs::exists("/usr/lib/nginx/modules/ngx_stream_module.so")) {
    GTEST_SKIP() << "nginx with its stream module is not installed";
  }
  const Ran ran =
      Shell(nginx + " -t -c " + (kSource / "deploy/nginx/nginx.conf").string());
  EXPECT_EQ(ran.exit_code, 0) << ran.output;
}

TEST(SystemdTest, Unit_ExposesLittle) {
  if (!Installed("systemd-analyze")) {
    GTEST_SKIP() << "systemd-analyze is not installed";
  }
  const Ran ran = Shell(
      "systemd-analyze security --offline=yes --threshold=20 --no-pager " +
      (kSource / "packaging/selvage-coordinator.service").string());
  if (ran.output.find("unrecognized option") != std::string::npos) {
    GTEST_SKIP() << "this systemd-analyze cannot read a unit offline";
  }
  EXPECT_EQ(ran.exit_code, 0) << ran.output;
}

}  // namespace
}  // namespace selvage
