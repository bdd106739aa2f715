#include "run/commands/manual.h"

#include <cstdio>
#include <functional>
#include <sstream>
#include <vector>

#include "run/commands/cli.h"

namespace plumb::run {
namespace {

std::vector<const CLI::App*> Verbs(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App* verb) { return !verb->get_group().empty(); });
}

std::vector<const CLI::Option*> Options(const CLI::App& app) {
  return app.get_options([](const CLI::Option* option) { return !option->get_group().empty(); });
}

// Every verb below `app` with its name in full ("data import"); `app` itself, named "", first.
void Walk(const CLI::App& app, const std::string& name,
          const std::function<void(const std::string&, const CLI::App&)>& visit) {
  visit(name, app);
  for (const CLI::App* verb : Verbs(app))
    Walk(*verb, name.empty() ? verb->get_name() : name + " " + verb->get_name(), visit);
}

// Roff takes a backslash as its own, and a point or an apostrophe at the start of a line.
std::string Roff(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if ((c == '.' || c == '\'') && (out.empty() || out.back() == '\n')) out += "\\&";
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else {
      out += c;
    }
  }
  return out;
}

std::string ItemOf(const CLI::Option& option) {
  if (option.get_positional()) return "\\fI" + Roff(option.get_name()) + "\\fR";
  std::string names = "\\fB" + Roff(option.get_name(false, true)) + "\\fR";
  if (const size_t comma = names.find(','); comma != std::string::npos)
    names.insert(comma + 1, " ");
  if (option.get_items_expected_max() > 0) names += " \\fI" + Roff(option.get_type_name()) + "\\fR";
  return names;
}

// For each verb, by its name in full, what may follow it.
std::string Cases(const CLI::App& app, const std::string& indent) {
  std::ostringstream out;
  Walk(app, "", [&](const std::string& name, const CLI::App& verb) {
    std::string verbs, options;
    for (const CLI::App* sub : Verbs(verb)) verbs += " " + sub->get_name();
    for (const CLI::Option* option : Options(verb)) {
      for (const std::string& longer : option->get_lnames()) options += " --" + longer;
    }
    const auto trimmed = [](const std::string& text) { return text.substr(text.empty() ? 0 : 1); };
    out << indent << "\"" << name << "\") verbs=\"" << trimmed(verbs) << "\" options=\""
        << trimmed(options) << "\" ;;\n";
  });
  return out.str();
}

// The verb that the words from `first` to before the cursor (`end`) name; `word` is how the shell
// writes the i-th of them.
std::string FindVerb(const CLI::App& app, const std::string& first, const std::string& word,
                     const std::string& end) {
  std::string known;
  Walk(app, "", [&](const std::string& name, const CLI::App&) {
    if (!name.empty()) known += (known.empty() ? "\"" : "|\"") + name + "\"";
  });
  return "  for ((i = " + first + "; i < " + end +
         "; i++)); do\n"
         "    case \"${verb:+$verb }" +
         word + "\" in\n      " + known + ") verb=\"${verb:+$verb }" + word +
         "\" ;;\n"
         "    esac\n"
         "  done\n";
}

}  // namespace

std::string ManualPage(const CLI::App& app) {
  const std::string version = VersionText();
  std::ostringstream out;
  out << ".TH PLUMB 1 \"\" \"" << Roff(version.substr(0, version.find('\n'))) << "\"\n"
      << ".SH NAME\nplumb \\- reinforcement learning for language models\n"
      << ".SH SYNOPSIS\n.B plumb\n.I VERB\n.RI [ ARGUMENTS ]\n"
      << ".SH DESCRIPTION\n"
      << Roff(app.get_description()) << "\n";
  out << ".SH VERBS\n";
  Walk(app, "", [&](const std::string& name, const CLI::App& verb) {
    if (name.empty()) return;
    out << ".SS plumb " << Roff(name) << "\n" << Roff(verb.get_description()) << "\n";
    for (const CLI::Option* option : Options(verb)) {
      if (option == verb.get_help_ptr()) continue;
      out << ".TP\n" << ItemOf(*option) << "\n" << Roff(option->get_description()) << "\n";
    }
    if (verb.get_footer() != app.get_footer())
      out << ".PP\n.nf\n" << Roff(verb.get_footer()) << "\n.fi\n";
  });
  out << ".SH EXIT STATUS\n"
      << Roff(app.get_footer()) << "\n"
      << ".SH SEE ALSO\n.B plumb doctor\nsays what this machine and this build can do,\n"
      << ".B plumb config show\nwhat each option of a recipe means.\n";
  return out.str();
}

std::string BashCompletion(const CLI::App& app) {
  return "# Completes verbs and options of plumb; files everywhere else.\n"
         "_plumb() {\n"
         "  local current=${COMP_WORDS[COMP_CWORD]} verb= verbs= options= i\n" +
         FindVerb(app, "1", "${COMP_WORDS[i]}", "COMP_CWORD") + "  case $verb in\n" +
         Cases(app, "    ") +
         "  esac\n"
         "  [[ $current == -* ]] && verbs=$options\n"
         "  COMPREPLY=($(compgen -W \"$verbs\" -- \"$current\"))\n"
         "}\n"
         "complete -o default -F _plumb plumb\n";
}

std::string ZshCompletion(const CLI::App& app) {
  return "#compdef plumb\n"
         "# Completes verbs and options of plumb; files everywhere else.\n"
         "_plumb() {\n"
         "  local verb= verbs= options= i\n" +
         FindVerb(app, "2", "${words[i]}", "CURRENT") +  // the first of them is the program
         "  case $verb in\n" + Cases(app, "    ") +
         "  esac\n"
         "  if [[ $PREFIX == -* ]]; then\n"
         "    compadd -- ${=options}\n"
         "  elif [[ -n $verbs ]]; then\n"
         "    compadd -- ${=verbs}\n"
         "  else\n"
         "    _files\n"
         "  fi\n"
         "}\n"
         "_plumb \"$@\"\n";
}

}  // namespace plumb::run
