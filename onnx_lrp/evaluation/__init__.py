"""Are the explanations right? What follows when relevant inputs are taken away, by the measures of the literature."""
