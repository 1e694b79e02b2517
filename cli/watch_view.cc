#include "cli/watch_view.h"

#include <algorithm>

#include "cli/render.h"
#include "cli/text.h"

namespace selvage::cli {
namespace {

constexpr const char* kBold = "\x1b[1m";
constexpr const char* kGreen = "\x1b[32m";
constexpr const char* kYellow = "\x1b[33m";
constexpr const char* kRed = "\x1b[31m";
constexpr const char* kReset = "\x1b[0m";

std::string Paint(const std::string& text, const char* color,
                  const WatchStyle& style) {
  return style.color ? color + text + kReset : text;
}

// The first `width` columns of plain text.
std::string Cut(const std::string& text, size_t width) {
  if (DisplayWidth(text) <= width) return text;
  size_t columns = 0;
  size_t end = 0;
  while (end < text.size()) {
    const bool starts = (static_cast<unsigned char>(text[end]) & 0xc0) != 0x80;
    if (starts && columns++ == width) break;
    ++end;
  }
  return text.substr(0, end);
}

const char* TaskColor(v1::Task::State state) {
  switch (state) {
    case v1::Task::FINISHED:
      return kGreen;
    case v1::Task::STOPPED:
      return kRed;
    default:
      return kYellow;
  }
}

std::string Key(const std::string& name) {
  constexpr size_t kWidth = 11;
  const std::string text = Cut(Printable(name), kWidth - 1);
  return text + std::string(kWidth - DisplayWidth(text), ' ');
}

template <typename Values>
std::string Curve(const std::string& name, const Values& values,
                  const WatchStyle& style) {
  if (values.empty()) return "";
  std::string out = Key(name) + FormatNumber(*values.rbegin());
  out.resize(std::max<size_t>(out.size() + 1, 20), ' ');
  const size_t room =
      style.width > DisplayWidth(out) ? style.width - DisplayWidth(out) : 0;
  const std::vector<double> points(values.begin(), values.end());
  return out + Sparkline(points, std::min<size_t>(room, 60), style.unicode);
}

}  // namespace

std::vector<std::string> WatchFrame(const v1::TaskSnapshot& snapshot,
                                    int64_t now_micros,
                                    const WatchStyle& style) {
  const v1::Task& task = snapshot.task();
  const int64_t end =
      task.ended_micros() != 0 ? task.ended_micros() : now_micros;
  const std::string state(StateText(task.state()));
  const std::string head = Cut(Printable(task.name()), style.width);
  const std::string tail =
      Cut("  " + state + "  " +
              FormatDuration(Duration(end - task.created_micros())),
          style.width - DisplayWidth(head));
  std::vector<std::string> lines;
  lines.push_back(Paint(head, kBold, style) +
                  Paint(tail, TaskColor(task.state()), style));

  const auto add = [&](const std::string& line) {
    if (!line.empty()) lines.push_back(Cut(line, style.width));
  };
  const std::string abandoned =
      task.abandoned_rounds() > 0
          ? ", " + std::to_string(task.abandoned_rounds()) + " abandoned"
          : "";
  add(Key("rounds") +
      ProgressBar(task.committed_rounds(), task.num_rounds(), 30,
                  style.unicode) +
      " " + std::to_string(task.committed_rounds()) + " of " +
      std::to_string(task.num_rounds()) + abandoned);
  if (snapshot.has_round()) {
    const v1::Round& round = snapshot.round();
    add(Key("round " + std::to_string(round.number())) +
        std::string(StateText(round.state())) +
        (round.mode() == v1::Assignment::EVALUATE ? " (evaluation)" : "") +
        (round.reason().empty() ? "" : ": " + Printable(round.reason())));
    add(Key("funnel") + FunnelText(round.funnel()));
    std::string reasons;
    for (const auto& [reason, count] : round.funnel().reasons()) {
      reasons += Printable(reason) + " " + std::to_string(count) + "  ";
    }
    if (!reasons.empty()) add(Key("lost to") + reasons);
  }
  add(Curve(task.key_metric(), snapshot.key_metric_history(), style));
  if (task.key_metric() != "loss") {
    add(Curve("loss", snapshot.loss_history(), style));
  }
  return lines;
}

std::string RoundLine(const v1::Round& round, uint64_t num_rounds) {
  const v1::Funnel& funnel = round.funnel();
  std::string out =
      "round " + std::to_string(round.number()) + "/" +
      std::to_string(num_rounds) + "  " +
      std::string(StateText(round.state())) +
      (round.mode() == v1::Assignment::EVALUATE ? " (evaluation)" : "") +
      "  accepted " + std::to_string(funnel.accepted()) + " of " +
      std::to_string(funnel.assigned());
  if (round.ended_micros() != 0) {
    out += "  " + FormatDuration(Duration(RoundMicros(round)));
  }
  if (!round.metrics().empty()) out += "  " + MetricsText(round.metrics());
  if (!round.reason().empty()) out += "  " + round.reason();
  return Printable(out);
}

std::string TaskLine(const v1::Task& task) {
  return Printable(
      "task " + task.name() + " is " + std::string(StateText(task.state())) +
      ": " + std::to_string(task.committed_rounds()) + " of " +
      std::to_string(task.num_rounds()) + " rounds committed, " +
      std::to_string(task.abandoned_rounds()) + " abandoned, version " +
      std::to_string(task.latest_version()) +
      (task.has_best_version() ? ", best " + std::to_string(task.best_version())
                               : "") +
      (task.end_reason().empty() ? "" : "; " + task.end_reason()));
}

std::string EraseFrame(size_t lines) {
  return lines == 0 ? "" : "\x1b[" + std::to_string(lines) + "A\r\x1b[0J";
}

}  // namespace selvage::cli
