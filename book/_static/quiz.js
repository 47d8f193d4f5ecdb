/* The quizzes: says at once whether a choice is right, and why; and counts. */
(function () {
  "use strict";
  function answer(question, choice) {
    var why = question.querySelector('[data-choice="' + choice.value + '"]');
    var right = why.hasAttribute("data-right");
    var said = question.querySelector(".quiz-said");
    question.querySelectorAll(".quiz-choice").forEach(function (label) {
      label.classList.toggle("quiz-chosen", label.contains(choice));
      if (label.contains(choice)) label.classList.add(right ? "quiz-right" : "quiz-wrong");
    });
    if (!question.dataset.first) question.dataset.first = right ? "right" : "wrong";
    said.textContent = (right ? "✓ Right. " : "✗ Not that one. ") + why.querySelector("span").textContent;
    said.className = "quiz-said " + (right ? "quiz-right" : "quiz-wrong");
    if (right) question.dataset.done = "yes";
    count(question.closest(".quiz"));
  }
  function count(quiz) {
    var all = quiz.querySelectorAll(".quiz-question");
    var done = quiz.querySelectorAll(".quiz-question[data-done]").length;
    var first = quiz.querySelectorAll('.quiz-question[data-first="right"]').length;
    quiz.querySelector(".quiz-score").textContent =
      done + " of " + all.length + " answered, " + first + " of them at the first try.";
  }
  function start() {
    document.querySelectorAll(".quiz:not([data-started])").forEach(function (quiz) {
      quiz.dataset.started = "yes";
      quiz.addEventListener("change", function (event) {
        if (event.target.type === "radio") answer(event.target.closest(".quiz-question"), event.target);
      });
    });
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
