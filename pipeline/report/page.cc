#include "pipeline/report/page.h"

#include "core/base/version.h"
#include "core/io/json.h"
#include "pipeline/report/escape.h"
#include "pipeline/report/format_text.h"
#include "pipeline/report/page_files.h"

namespace kvc::report {
namespace {

// Keeps a percent sign on the line of its number.
std::string WithUnits(std::string html) {
  for (size_t at = html.find(" %"); at != std::string::npos; at = html.find(" %", at)) {
    html.replace(at, 1, "&nbsp;");
  }
  return html;
}

std::string TileHtml(const Tile& tile) {
  const char* tone = tile.tone == Tile::Tone::kGood  ? " good"
                     : tile.tone == Tile::Tone::kBad ? " bad"
                                                     : "";
  return std::string("<div class=\"tile") + tone + "\"><span>" + EscapeHtml(tile.name) +
         "</span><b>" + WithUnits(EscapeHtml(tile.value)) + "</b><small>" +
         WithUnits(EscapeHtml(tile.note)) + "</small></div>\n";
}

// The scripts, and the policy that lets these run and nothing be loaded.
std::string Script(std::string_view text) { return "<script>" + std::string(text) + "</script>\n"; }

std::string Policy() {
  return "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
         "'unsafe-inline'; script-src " +
         ScriptHash(kChartJs) + " " + ScriptHash(kPageScript) + "\">\n";
}

}  // namespace

Page::Page(const std::string& heading, const std::vector<std::string>& lines) {
  body_ = "<h1>" + EscapeHtml(heading) + "</h1>\n";
  for (const std::string& line : lines) {
    body_ += "<p class=\"about\">" + EscapeHtml(line) + "</p>\n";
  }
}

void Page::CloseGrid() {
  if (in_grid_) body_ += "</div>\n";
  in_grid_ = false;
}

void Page::Add(const std::string& html) {
  CloseGrid();
  if (!heading_.empty()) body_ += "<h2>" + EscapeHtml(heading_) + "</h2>\n";
  heading_.clear();
  body_ += html;
}

void Page::AddFigure(const std::string& html) {
  if (!in_grid_) {
    Add("<div class=\"grid\">\n");
    in_grid_ = true;
  }
  body_ += html;
}

void Page::AddVerdict(const std::string& sentence, const std::vector<Tile>& tiles) {
  std::string html = "<p class=\"verdict\">" + WithUnits(EscapeHtml(sentence)) + "</p>\n";
  if (!tiles.empty()) html += "<div class=\"tiles\">\n";
  for (const Tile& tile : tiles) html += TileHtml(tile);
  if (!tiles.empty()) html += "</div>\n";
  Add(html);
}

void Page::AddHeading(const std::string& text) {
  CloseGrid();
  heading_ = text;
}

void Page::AddParagraph(const std::string& text) { Add("<p>" + EscapeHtml(text) + "</p>\n"); }

void Page::AddTable(const Table& table) {
  if (!table.rows.empty()) Add("<div class=\"scroll\">" + report::ToHtml(table) + "</div>\n");
}

void Page::AddFolded(const std::string& name, const Table& table) {
  if (table.rows.empty()) return;
  Add("<details><summary>" + EscapeHtml(name) + "</summary><div class=\"scroll\">" +
      report::ToHtml(table) + "</div></details>\n");
}

void Page::AddHeatMap(const HeatMap& map) {
  const std::string html = report::ToHtml(map);
  if (!html.empty()) AddFigure(html);
}

void Page::AddChart(const Chart& chart) {
  const Chart shown = Drawable(chart);
  const size_t points = CountPoints(shown);
  if (points == 0) return;
  if (points == 1) {
    const auto& [x, y] = shown.series[0].points[0];
    AddFigure("<figure class=\"number\"><figcaption>" + EscapeHtml(chart.title) +
              "</figcaption>\n<b>" + EscapeHtml(ValueText(y, chart.y)) + "</b> <span>" +
              EscapeHtml(shown.series[0].name + "; " + chart.y.label + ", at " +
                         ValueText(x, chart.x) + " " + chart.x.label) +
              "</span></figure>\n");
    return;
  }
  std::string html = "<figure class=\"chart\"><figcaption>" + EscapeHtml(chart.title) +
                     FormatText(
                         "</figcaption>\n<div class=\"plot\"><canvas id=\"chart-%zu\" "
                         "role=\"img\" aria-label=\"",
                         charts_.size()) +
                     EscapeHtml(chart.title) + "\"></canvas></div>\n";
  if (!chart.note.empty()) html += "<p class=\"note\">" + EscapeHtml(chart.note) + "</p>\n";
  AddFigure(html + "</figure>\n");
  charts_.push_back(shown);
}

std::string Page::ToHtml() const {
  Json data = {{"charts", Json::array()}};
  for (const Chart& chart : charts_) data["charts"].push_back(ToJson(chart));
  // Bytes that are no UTF-8 (names of folders) become replacement characters.
  const std::string json = data.dump(-1, ' ', true, Json::error_handler_t::replace);
  std::string html =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>kvc "
      "report</title>\n";
  html += Policy() +
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<style>" +
          std::string(kPageStyle) + "</style></head><body><main>\n" + body_ +
          (in_grid_ ? "</div>\n" : "");
  html += "<footer><p>kvc " + EscapeHtml(Version()) +
          "<span id=\"written\"></span>. Cache shares count allocated bytes, of what the "
          "checkpoint itself would cache. Charts are drawn by Chart.js (MIT licence, in this "
          "file).</p><noscript><p>The charts need scripts; the tables do not.</p></noscript>"
          "</footer></main>\n<!--\n" +
          std::string(kChartJsLicence) + "-->\n";
  html += Script(kChartJs) + "<script type=\"application/json\" id=\"data\">" +
          EscapeScriptJson(json) + "</script>\n" + Script(kPageScript);
  return html + "</body></html>\n";
}

}  // namespace kvc::report
