// std::mutex and std::condition_variable with the promises that clang can check, and the words to
// make such promises.
//
// Purpose: a member says which mutex guards it (PLUMB_GUARDED_BY), a function what has to be held
// or must not be (PLUMB_REQUIRES, PLUMB_EXCLUDES); `clang++ -Wthread-safety` then refuses code that
// breaks it, which the test `thread_safety` does with every file that holds a mutex. libstdc++'s
// own types say nothing, hence these. Methods are spelled as std's. Under other compilers the words
// mean nothing, and the types cost nothing.
// Thread safety: as those of std. Ownership: a MutexLock borrows its Mutex. Errors: none.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <utility>

#ifdef __clang__
#define PLUMB_THREAD_ATTRIBUTE(x) __attribute__((x))
#else
#define PLUMB_THREAD_ATTRIBUTE(x)
#endif

// Of a member: read and written with `mu` held. PT: what the pointer points to.
#define PLUMB_GUARDED_BY(mu) PLUMB_THREAD_ATTRIBUTE(guarded_by(mu))
#define PLUMB_PT_GUARDED_BY(mu) PLUMB_THREAD_ATTRIBUTE(pt_guarded_by(mu))
// Of a mutex: where both are held, it is taken after `mu`.
#define PLUMB_ACQUIRED_AFTER(mu) PLUMB_THREAD_ATTRIBUTE(acquired_after(mu))
// Of a function, or of a lambda after its parameters: called with `mu` held; called without it.
#define PLUMB_REQUIRES(...) PLUMB_THREAD_ATTRIBUTE(exclusive_locks_required(__VA_ARGS__))
#define PLUMB_EXCLUDES(...) PLUMB_THREAD_ATTRIBUTE(locks_excluded(__VA_ARGS__))
// Of a function whose locking clang cannot follow. Say why beside it.
#define PLUMB_NOT_CHECKED PLUMB_THREAD_ATTRIBUTE(no_thread_safety_analysis)

namespace plumb {

class PLUMB_THREAD_ATTRIBUTE(lockable) Mutex {
 public:
  void lock() PLUMB_THREAD_ATTRIBUTE(exclusive_lock_function()) { mu_.lock(); }
  void unlock() PLUMB_THREAD_ATTRIBUTE(unlock_function()) { mu_.unlock(); }

 private:
  friend class MutexLock;
  std::mutex mu_;
};

// Holds a Mutex while it lives, but for what lies between unlock() and lock().
class PLUMB_THREAD_ATTRIBUTE(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mu) PLUMB_THREAD_ATTRIBUTE(exclusive_lock_function(mu))
      : lock_(mu.mu_) {}
  ~MutexLock() PLUMB_THREAD_ATTRIBUTE(unlock_function()) {}
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

  void lock() PLUMB_THREAD_ATTRIBUTE(exclusive_lock_function()) { lock_.lock(); }
  void unlock() PLUMB_THREAD_ATTRIBUTE(unlock_function()) { lock_.unlock(); }

 private:
  friend class CondVar;
  std::unique_lock<std::mutex> lock_;
};

// Waits give the mutex back meanwhile and hold it again when they return. A predicate is called
// with it held: mark the lambda with PLUMB_REQUIRES. That the lock handed over is of that mutex is
// for the caller to see.
class CondVar {
 public:
  void notify_one() { changed_.notify_one(); }
  void notify_all() { changed_.notify_all(); }

  template <class Predicate>
  void wait(MutexLock& lock, Predicate predicate) PLUMB_NOT_CHECKED {
    changed_.wait(lock.lock_, std::move(predicate));
  }
  template <class Time>
  std::cv_status wait_until(MutexLock& lock, const Time& deadline) {
    return changed_.wait_until(lock.lock_, deadline);
  }
  // The last value of the predicate.
  template <class Time, class Predicate>
  bool wait_until(MutexLock& lock, const Time& deadline, Predicate predicate) PLUMB_NOT_CHECKED {
    return changed_.wait_until(lock.lock_, deadline, std::move(predicate));
  }

 private:
  std::condition_variable changed_;
};

}  // namespace plumb
