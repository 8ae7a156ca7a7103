#include <cerrno>
#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "chat/line_editor.h"
#include "chat/plain_lines.h"
#include <histedit.h>
#include <termios.h>
#include <unistd.h>

namespace kvc::chat {
namespace {

constexpr int kLinesRemembered = 500;

class EditedLines : public LineReader {
 public:
  EditedLines(std::string prompt, std::function<bool()> interrupted)
      : prompt_(std::move(prompt)), interrupted_(std::move(interrupted)) {
    // Characters of several bytes are edited as such, in an environment without a locale too.
    if (std::setlocale(LC_CTYPE, "") == nullptr || MB_CUR_MAX == 1) {
      std::setlocale(LC_CTYPE, "C.UTF-8");
    }
    history_ = history_init();
    HistEvent event;
    history(history_, &event, H_SETSIZE, kLinesRemembered);
    editor_ = el_init("kvc-run", stdin, stdout, stderr);
    el_set(editor_, EL_CLIENTDATA, this);
    el_set(editor_, EL_PROMPT, &EditedLines::Prompt);
    el_set(editor_, EL_EDITOR, "emacs");
    el_set(editor_, EL_SIGNAL, 1);  // the terminal is as before when a signal arrives
    el_set(editor_, EL_HIST, history, history_);
    el_source(editor_, nullptr);  // ~/.editrc
    el_set(editor_, EL_ADDFN, "kvc-drop-line", "Drop the line", &EditedLines::DropLine);
    el_set(editor_, EL_BIND, "^C", "kvc-drop-line", nullptr);
  }
  ~EditedLines() override {
    el_end(editor_);
    history_end(history_);
  }

  std::optional<std::string> Read() override {
    int count = 0;
    const char* line = nullptr;
    bool dropped = true;
    while (dropped) {
      dropped_ = false;
      TakeTerminal();
      line = el_gets(editor_, &count);
      const bool interrupted =
          line == nullptr && count < 0 && errno == EINTR && interrupted_();  // by another process
      dropped = dropped_ || interrupted;
      // What is shown next does not stand behind the prompt.
      if (dropped_ || line == nullptr || count <= 0) std::fputc('\n', stdout);
    }
    if (line == nullptr || count <= 0) return std::nullopt;
    std::string text(line, static_cast<size_t>(count));
    if (text.ends_with('\n')) text.pop_back();
    HistEvent event;
    if (!text.empty()) history(history_, &event, H_ENTER, text.c_str());
    return text;
  }

 private:
  static char* Prompt(EditLine* editor) {
    EditedLines* self = nullptr;
    el_get(editor, EL_CLIENTDATA, &self);
    return self->prompt_.data();
  }

  // Gives the keys to the editor, from the prompt on, until the line ends; Ctrl-C too: as a signal
  // it is lost where it arrives after the editor has shown a key and before it waits for the next.
  void TakeTerminal() {
    el_set(editor_, EL_PREP_TERM, 1);
    termios settings = {};
    if (tcgetattr(STDIN_FILENO, &settings) != 0) return;
    settings.c_cc[VINTR] = _POSIX_VDISABLE;
    tcsetattr(STDIN_FILENO, TCSADRAIN, &settings);
  }

  static unsigned char DropLine(EditLine* editor, int /*key*/) {
    EditedLines* self = nullptr;
    el_get(editor, EL_CLIENTDATA, &self);
    self->dropped_ = true;
    const LineInfo* line = el_line(editor);
    el_cursor(editor, static_cast<int>(line->lastchar - line->cursor));
    el_set(editor, EL_REFRESH);  // what is shown next stands behind the whole line
    return CC_NEWLINE;
  }

  std::string prompt_;
  bool dropped_ = false;
  std::function<bool()> interrupted_;
  History* history_ = nullptr;
  EditLine* editor_ = nullptr;
};

}  // namespace

std::unique_ptr<LineReader> MakeLineReader(const std::string& prompt,
                                           std::function<bool()> interrupted) {
  if (isatty(STDIN_FILENO) != 1 || isatty(STDOUT_FILENO) != 1) return MakePlainLines("");
  return std::make_unique<EditedLines>(prompt, std::move(interrupted));
}

}  // namespace kvc::chat
