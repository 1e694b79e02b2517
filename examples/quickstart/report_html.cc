// report.html: two drawings and the numbers behind them.
#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>

#include "examples/quickstart/report.h"

namespace selvage::quickstart {
namespace {

constexpr double kWidth = 860;

// Colours as variables, so that light and dark are two lists and nothing else.
constexpr const char* kHead = R"(<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Selvage quickstart</title>
<style>
:root { --page: #fcfcfb; --ink: #1c1c1a; --soft: #62625c; --line: #dcdcd6;
  --card: #ffffff; --alone: #b5651d; --global: #6b7280; --personal: #1f6feb;
  --band: #6b728033; }
@media (prefers-color-scheme: dark) { :root { --page: #161615; --ink: #eeeeea;
  --soft: #a2a29a; --line: #3a3a37; --card: #1e1e1c; --alone: #e0954f;
  --global: #a3acba; --personal: #6cb0ff; --band: #a3acba33; } }
body { background: var(--page); color: var(--ink); margin: 0 auto;
  padding: 2rem 1.25rem 4rem; max-width: 56rem;
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .3rem; }
p { margin: .3rem 0 .8rem; max-width: 44rem; }
.soft { color: var(--soft); }
.tiles { display: grid; gap: .8rem; margin: 1.4rem 0;
  grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); }
.tile { background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: .8rem 1rem; }
.tile b { display: block; font-size: 1.7rem; font-weight: 600;
  font-variant-numeric: tabular-nums; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
svg text.name { fill: var(--ink); }
.grid { stroke: var(--line); stroke-width: 1; }
.band { fill: var(--band); }
.curve { fill: none; stroke: var(--personal); stroke-width: 2.5;
  stroke-linejoin: round; }
.point { fill: var(--personal); }
.link { stroke: var(--line); stroke-width: 3; stroke-linecap: round; }
.alone { fill: none; stroke: var(--alone); stroke-width: 2; }
.global { fill: var(--global); }
.personal { fill: var(--personal); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem 1rem .25rem 0; text-align: right;
  border-bottom: 1px solid var(--line); font-weight: normal; }
th { color: var(--soft); }
th:first-child, td:first-child { text-align: left; }
.scroll { overflow-x: auto; }
.scroll svg { min-width: 40rem; }
summary { cursor: pointer; color: var(--soft); margin-top: 1rem; }
code { font-size: .92em; overflow-wrap: anywhere; }
</style>
</head>
<body>
)";

[[gnu::format(printf, 1, 2)]] std::string Format(const char* format, ...) {
  char buffer[512];
  va_list arguments;
  va_start(arguments, format);
  const int size = std::vsnprintf(buffer, sizeof buffer, format, arguments);
  va_end(arguments);
  return std::string(buffer,
                     std::min(static_cast<size_t>(size), sizeof buffer - 1));
}

std::string Escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

// A vertical or horizontal percent axis: value -> pixel.
struct Axis {
  double low;
  double high;
  double begin;
  double end;
  double At(double value) const {
    return begin + (value - low) / (high - low) * (end - begin);
  }
};

// Whole tens around the values, within 0..100.
Axis PercentAxis(double least, double most, double begin, double end) {
  double low = std::max(0.0, std::floor(least / 10) * 10);
  double high = std::min(100.0, std::ceil(most / 10) * 10);
  if (high - low < 10) {
    low = std::max(0.0, high - 10);
    high = low + 10;
  }
  return {low, high, begin, end};
}

std::string Tile(const char* name, double mean, const std::string& text) {
  return Format(
             "<div class=\"tile\"><span class=\"soft\">%s</span>"
             "<b>%.1f&thinsp;%%</b><span class=\"soft\">",
             name, mean) +
         text + "</span></div>\n";
}

std::string SpreadText(const Spread& spread) {
  return Format("10th percentile %.1f, worst %.1f", spread.p10, spread.worst);
}

Spread Of(const std::vector<DeviceScore>& scores, double DeviceScore::*member) {
  std::vector<double> values;
  values.reserve(scores.size());
  for (const DeviceScore& score : scores) values.push_back(score.*member);
  return SpreadOf(values);
}

// The band's edges; the curve itself where there is none.
double LowOf(const RoundPoint& point) {
  return point.p10.value_or(point.accuracy);
}
double HighOf(const RoundPoint& point) {
  return point.p90.value_or(point.accuracy);
}

std::string LearningCurve(const std::vector<RoundPoint>& history) {
  std::vector<RoundPoint> points;
  for (const RoundPoint& point : history) {
    if (point.measured) points.push_back(point);
  }
  if (points.size() < 2) {
    return "<p class=\"soft\">Fewer than two rounds were measured: there is "
           "no curve to draw.</p>\n";
  }
  constexpr double kHeight = 300;
  double least = 100;
  double most = 0;
  for (const RoundPoint& point : points) {
    least = std::min({least, LowOf(point), point.accuracy});
    most = std::max({most, HighOf(point), point.accuracy});
  }
  const Axis y = PercentAxis(least, most, kHeight - 34, 10);
  const Axis x{static_cast<double>(points.front().round),
               static_cast<double>(points.back().round), 44, kWidth - 16};
  std::string svg = Format(
      "<div class=\"scroll\"><svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" "
      "aria-label=\"Accuracy of the global model by round\">\n"
      "<text x=\"0\" y=\"%.0f\">round</text>\n",
      kWidth, kHeight, kHeight - 14);
  for (int tick = 0; tick <= 100; tick += 10) {
    const double value = tick;
    if (value < y.low || value > y.high) continue;
    svg += Format(
        "<line class=\"grid\" x1=\"44\" x2=\"%.0f\" y1=\"%.1f\" y2=\"%.1f\"/>"
        "<text x=\"36\" y=\"%.1f\" text-anchor=\"end\">%.0f</text>\n",
        kWidth - 16, y.At(value), y.At(value), y.At(value) + 4, value);
  }
  const size_t step = std::max<size_t>(1, points.size() / 10);
  for (size_t i = 0; i < points.size(); i += step) {
    svg += Format(
        "<text x=\"%.1f\" y=\"%.0f\" text-anchor=\"middle\">%llu</text>\n",
        x.At(static_cast<double>(points[i].round)), kHeight - 14,
        static_cast<unsigned long long>(points[i].round));
  }
  std::string upper;
  std::string lower;
  std::string line;
  std::string marks;
  for (const RoundPoint& point : points) {
    const double at = x.At(static_cast<double>(point.round));
    upper += Format("%.1f,%.1f ", at, y.At(HighOf(point)));
    lower.insert(0, Format("%.1f,%.1f ", at, y.At(LowOf(point))));
    line += Format("%.1f,%.1f ", at, y.At(point.accuracy));
    const std::string spread =
        point.p10.has_value() && point.p90.has_value()
            ? Format(" (10th percentile %.1f, 90th %.1f)", *point.p10,
                     *point.p90)
            : "";
    marks += Format(
        "<circle class=\"point\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"><title>round "
        "%llu: %.1f %%%s</title></circle>\n",
        at, y.At(point.accuracy), static_cast<unsigned long long>(point.round),
        point.accuracy, spread.c_str());
  }
  return svg + "<polygon class=\"band\" points=\"" + upper + lower +
         "\"/>\n<polyline class=\"curve\" points=\"" + line + "\"/>\n" + marks +
         "</svg></div>\n";
}

// One line per device: where alone, global and personal stand.
std::string Dumbbells(std::vector<DeviceScore> scores, const char* label) {
  std::sort(scores.begin(), scores.end(),
            [](const DeviceScore& a, const DeviceScore& b) {
              return a.global != b.global ? a.global < b.global
                                          : a.device < b.device;
            });
  constexpr double kRow = 19;
  constexpr double kLeft = 110;
  double least = 100;
  double most = 0;
  for (const DeviceScore& s : scores) {
    least = std::min({least, s.alone, s.global, s.personal});
    most = std::max({most, s.alone, s.global, s.personal});
  }
  const Axis x = PercentAxis(least, most, kLeft, kWidth - 16);
  const double height = kRow * static_cast<double>(scores.size()) + 34;
  std::string svg = Format(
      "<div class=\"scroll\"><svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" "
      "aria-label=\"%s\">\n",
      kWidth, height, label);
  for (int tick = 0; tick <= 100; tick += 10) {
    const double value = tick;
    if (value < x.low || value > x.high) continue;
    svg += Format(
        "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"4\" y2=\"%.0f\"/>"
        "<text x=\"%.1f\" y=\"%.0f\" text-anchor=\"middle\">%.0f</text>\n",
        x.At(value), x.At(value), height - 28, x.At(value), height - 10, value);
  }
  double y = 4 + kRow / 2;
  for (const DeviceScore& s : scores) {
    svg += Format(
        "<g><title>%s: alone %.0f, global %.0f, personal %.0f</title>"
        "<text class=\"name\" x=\"0\" y=\"%.1f\">%s</text>"
        "<line class=\"link\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" "
        "y2=\"%.1f\"/>",
        Escaped(s.device).c_str(), s.alone, s.global, s.personal, y + 4,
        Escaped(s.device).c_str(), x.At(s.global), x.At(s.personal), y, y);
    svg += Format(
        "<circle class=\"alone\" cx=\"%.1f\" cy=\"%.1f\" r=\"4.5\"/>"
        "<circle class=\"global\" cx=\"%.1f\" cy=\"%.1f\" r=\"5\"/>"
        "<circle class=\"personal\" cx=\"%.1f\" cy=\"%.1f\" r=\"5\"/></g>\n",
        x.At(s.alone), y, x.At(s.global), y, x.At(s.personal), y);
    y += kRow;
  }
  return svg + "</svg></div>\n";
}

constexpr const char* kLegend =
    "<p class=\"soft\"><svg viewBox=\"0 0 12 12\" style=\"display:inline;"
    "width:.75em\"><circle class=\"alone\" cx=\"6\" cy=\"6\" r=\"4.5\"/></svg> "
    "alone &ensp; <svg viewBox=\"0 0 12 12\" style=\"display:inline;"
    "width:.75em\"><circle class=\"global\" cx=\"6\" cy=\"6\" r=\"5\"/></svg> "
    "global &ensp; <svg viewBox=\"0 0 12 12\" style=\"display:inline;"
    "width:.75em\"><circle class=\"personal\" cx=\"6\" cy=\"6\" r=\"5\"/></svg>"
    " personal &ensp; accuracy in percent on the device's own held-back "
    "images</p>\n";

std::string DeviceTable(const std::vector<DeviceScore>& scores) {
  std::string out =
      "<div class=\"scroll\"><table><tr><th>device</th><th>alone</th>"
      "<th>global</th><th>personal</th></tr>\n";
  for (const DeviceScore& s : scores) {
    out += Format(
        "<tr><td>%s</td><td>%.1f</td><td>%.1f</td><td>%.1f</td>"
        "</tr>\n",
        Escaped(s.device).c_str(), s.alone, s.global, s.personal);
  }
  return out + "</table></div>\n";
}

std::string RoundTable(const std::vector<RoundPoint>& history) {
  std::string out =
      "<div class=\"scroll\"><table><tr><th>round</th><th>state</th>"
      "<th>updates</th><th>seconds</th><th>accuracy before it</th></tr>\n";
  for (const RoundPoint& r : history) {
    out += Format(
        "<tr><td>%llu</td><td>%s</td><td>%llu</td><td>%.2f</td>"
        "<td>%s</td></tr>\n",
        static_cast<unsigned long long>(r.round),
        r.committed ? "committed" : "abandoned",
        static_cast<unsigned long long>(r.accepted), r.seconds,
        r.measured ? Format("%.1f", r.accuracy).c_str() : "-");
  }
  return out + "</table></div>\n";
}

}  // namespace

std::string ReportHtml(const Findings& f) {
  const Spread alone = Of(f.fleet, &DeviceScore::alone);
  const Spread global = Of(f.fleet, &DeviceScore::global);
  const Spread personal = Of(f.fleet, &DeviceScore::personal);
  std::string out = kHead;
  out += Format(
      "<h1>%d devices learned together, and each finished its own model</h1>\n"
      "<p class=\"soft\">Fashion-MNIST, %d rounds, seed %llu. Every device "
      "has its own certificate, its own images with its own mix of classes, "
      "and sends model updates only.</p>\n",
      f.devices, f.rounds, static_cast<unsigned long long>(f.seed));
  out += "<div class=\"tiles\">\n";
  out += Tile("Alone", alone.mean, SpreadText(alone));
  out += Tile("Global", global.mean, SpreadText(global));
  out += Tile("Personal", personal.mean, SpreadText(personal));
  out += Tile("Newcomers", Of(f.newcomers, &DeviceScore::personal).mean,
              Format("%.1f before personalising",
                     Of(f.newcomers, &DeviceScore::global).mean));
  out += "</div>\n";
  out += Format(
      "<p class=\"soft\">%.1f MB up and %.1f MB down at the coordinator's "
      "socket, %.0f seconds, %llu certificates, %llu TLS connections.</p>\n",
      static_cast<double>(f.bytes_up) / 1e6,
      static_cast<double>(f.bytes_down) / 1e6, f.seconds,
      static_cast<unsigned long long>(f.certificates),
      static_cast<unsigned long long>(f.connections));
  out +=
      "<h2>Learning together</h2>\n<p class=\"soft\">Accuracy of the model "
      "each round started from, in percent, on images that the round's devices "
      "hold back from training; the band spans the 10th to the 90th percentile "
      "of devices.</p>\n";
  out += LearningCurve(f.history);
  out += "<h2>Each device, before and after</h2>\n";
  out += kLegend;
  out += Dumbbells(f.fleet, "Accuracy of each device");
  out +=
      "<h2>Newcomers</h2>\n<p class=\"soft\">They never took part in a round: "
      "they enrolled afterwards, installed the model and finished it.</p>\n";
  out += Dumbbells(f.newcomers, "Accuracy of each newcomer");
  out += "<details><summary>The numbers</summary>\n";
  std::vector<DeviceScore> all = f.fleet;
  all.insert(all.end(), f.newcomers.begin(), f.newcomers.end());
  out += DeviceTable(all) + RoundTable(f.history);
  out += "</details>\n<p class=\"soft\">Model: <code>" + Escaped(f.model) +
         "</code>, SHA-256 of the parameters <code>" + Escaped(f.model_digest) +
         "</code></p>\n";
  return out + "</body>\n</html>\n";
}

}  // namespace selvage::quickstart
