"""``jmp-md finetune``: look at a user's data, choose a recipe, train it and register the model."""
