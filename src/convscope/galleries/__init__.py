"""Makes folders of images: galleries of feature visualizations, and atlases (sites of them). Makes images again from receipts."""
