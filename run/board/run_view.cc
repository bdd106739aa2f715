#include "run/board/run_view.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace plumb::run {
namespace {

// Enough for some hundred steps: an evaluation is among them.
constexpr off_t kGlanceBytes = off_t{512} << 10;

}  // namespace

RunView::RunView(std::string name, std::string folder, std::chrono::milliseconds fresh)
    : name_(std::move(name)), folder_(std::move(folder)), fresh_(fresh), facts_(folder_) {}

void RunView::RefreshMetrics() {
  const auto now = Clock::now();
  if (metrics_ && now - metrics_at_ < fresh_) return;
  if (!metrics_) {
    metrics_ = std::make_unique<MetricTable>();
    metrics_tail_ = std::make_unique<LineTail>(RunFolder{folder_}.metrics());
  }
  MetricTable* const table = metrics_.get();
  metrics_tail_->Read([table] { table->Clear(); },
                      [table](std::string_view lines, uint64_t) { table->Append(lines); },
                      [table](uint64_t bytes) { table->Expect(bytes); });
  facts_.Refresh(metrics_->last_step());
  metrics_at_ = Clock::now();
}

void RunView::GlanceAtEnd() {
  const std::string path = RunFolder{folder_}.metrics();
  struct stat s {};
  if (stat(path.c_str(), &s) != 0 || !S_ISREG(s.st_mode)) {
    glance_.step = -1;
    glance_.newest.clear();
    glanced_size_ = -1;
    return;
  }
  const int64_t ns = int64_t{s.st_mtim.tv_sec} * 1'000'000'000 + s.st_mtim.tv_nsec;
  if (s.st_size == glanced_size_ && ns == glanced_ns_) return;
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return;
  const off_t begin = std::max<off_t>(0, s.st_size - kGlanceBytes);
  std::string text(static_cast<size_t>(s.st_size - begin), '\0');
  const ssize_t n = pread(file, text.data(), text.size(), begin);
  close(file);
  std::string_view lines(text.data(), n > 0 ? static_cast<size_t>(n) : 0);
  lines = lines.substr(0, lines.rfind('\n') + 1);  // npos + 1 is 0
  if (begin > 0) lines.remove_prefix(std::min(lines.size(), lines.find('\n') + 1));
  const size_t from = static_cast<size_t>(lines.data() - text.data()), bytes = lines.size();
  text.append(LineTail::kPadding, '\0');
  MetricTable table(MetricTable::kDefaultMaxBytes, /*threads=*/1);
  table.Append(std::string_view(text).substr(from, bytes));
  glance_.step = table.last_step();
  glance_.wall_s = table.last_wall_s();
  glance_.newest = table.Newest();
  glanced_size_ = s.st_size;
  glanced_ns_ = ns;
}

RunView::Glance RunView::Look() {
  const MutexLock lock(mu_);
  if (Clock::now() - facts_at_ >= fresh_) {
    if (metrics_) {
      RefreshMetrics();
      glance_.step = metrics_->last_step();
      glance_.wall_s = metrics_->last_wall_s();
      glance_.newest = metrics_->Newest();
      glanced_size_ = -1;
    } else {
      GlanceAtEnd();
      facts_.Refresh(glance_.step);
    }
    glance_.state = facts_.state();
    glance_.reason = facts_.reason();
    glance_.algorithm = facts_.Algorithm();
    glance_.model = facts_.Model();
    glance_.steps = facts_.wanted_steps();
    glance_.accuracy_after = facts_.AccuracyAfter();
    facts_at_ = Clock::now();
  }
  return glance_;
}

void RunView::WithMetrics(const std::function<void(const MetricTable&, const RunFacts&)>& visit) {
  const MutexLock lock(mu_);
  RefreshMetrics();
  visit(*metrics_, facts_);
}

void RunView::WithSamples(const std::function<void(const SampleTable&)>& visit) {
  const MutexLock lock(mu_);
  const auto now = Clock::now();
  if (!samples_ || now - samples_at_ >= fresh_) {
    const std::string path = RunFolder{folder_}.samples();
    if (!samples_) {
      samples_ = std::make_unique<SampleTable>(path);
      samples_tail_ = std::make_unique<LineTail>(path);
    }
    SampleTable* const table = samples_.get();
    samples_tail_->Read([table] { table->Clear(); },
                        [table](std::string_view lines, uint64_t at) { table->Append(lines, at); });
    samples_at_ = Clock::now();
  }
  visit(*samples_);
}

void RunView::WithFacts(const std::function<void(const RunFacts&)>& visit) {
  Look();
  const MutexLock lock(mu_);
  visit(facts_);
}

size_t RunView::bytes() const {
  const MutexLock lock(mu_);
  return (metrics_ ? metrics_->bytes() : 0) + (samples_ ? samples_->answers() * 48 : 0);
}

void RunView::Unload() {
  const MutexLock lock(mu_);
  metrics_.reset();
  metrics_tail_.reset();
  samples_.reset();
  samples_tail_.reset();
}

}  // namespace plumb::run
