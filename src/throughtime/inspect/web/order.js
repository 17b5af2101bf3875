// What stands where.
drawFinding();
drawAnswers();
drawMattered();
drawAlignment();
drawGradients();
drawNetwork();
drawGatesOverWords();
drawUnitOverText();
drawStates();
